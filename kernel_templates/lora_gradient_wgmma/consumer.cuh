// The warpgroups that multiply and write.
#pragma once

#include "lora_gradient_wgmma/layout.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/synchronise.cuh"
#include "ptx/wgmma.cuh"
#include "ring.cuh"
#include "wgmma_operand.cuh"

namespace smlora::lora_gradient_wgmma {

/// Two neighbours of a column or of a row of the output, or each for itself.
template <class Output>
__device__ __forceinline__ void store_pair(Output* to, int64 step, float first, float second, bool has_second) {
    if constexpr (sizeof(Output) == 2) {
        if (has_second && step == 1 && reinterpret_cast<uint64>(to) % 4 == 0) {
            *reinterpret_cast<uint32*>(to) = pack2<Output>(first, second);
            return;
        }
    }
    to[0] = from_float<Output>(first);
    if (has_second) to[step] = from_float<Output>(second);
}

/// One multiplying warpgroup.
template <class C>
struct Consumer {
    using L = Layout<C>;
    using Element = typename C::Element;
    using Output = typename C::Output;
    static constexpr int low_sums = L::low_ranks / 2;
    static constexpr int high_sums = L::high_ranks == 0 ? 1 : L::high_ranks / 2;

    const LoraGradientPair& args;
    unsigned base;
    int first_block;  ///< of the span's blocks, of BLOCKS
    Ring<C::STAGES> ring;

    /// Operand of k16 step `k` of the block at `target`.
    static __device__ __forceinline__ uint64 operand(unsigned target, int k) {
        return wgmma_operand(target + static_cast<unsigned>(k * 16 * 128), 128, 8 * 128,
                             static_cast<unsigned>(L::memory.block_bytes));
    }

    __device__ __forceinline__ void give_back(int stage) const {
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(L::emptied(base, stage));
    }

    __device__ __forceinline__ void multiply(float (&low)[C::BLOCKS][low_sums], float (&high)[C::BLOCKS][high_sums]) {
        const unsigned stage = base + static_cast<unsigned>(ring.stage * L::memory.stage_bytes);
        const unsigned ranks = stage + static_cast<unsigned>(L::memory.stage_ranks);
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < C::STEP_ROWS / 16; ++k) {
#pragma unroll
            for (int m = 0; m < C::BLOCKS; ++m) {
                const uint64 left =
                    operand(stage + static_cast<unsigned>((first_block + m) * L::memory.block_bytes), k);
                ptx::Wgmma<Element, L::low_ranks, 1, 1>::run(low[m], left, operand(ranks, k));
                if constexpr (L::high_ranks > 0) {
                    constexpr int blocks = L::low_ranks / block_columns;
                    ptx::Wgmma<Element, L::high_ranks, 1, 1>::run(
                        high[m], left, operand(ranks + static_cast<unsigned>(blocks * L::memory.block_bytes), k));
                }
            }
        }
        ptx::wgmma_commit();
    }

    /// Sums of 64 columns from `block_column` on, and of ranks from `first_rank` on.
    template <int COUNT>
    __device__ __forceinline__ void write(const float (&sums)[COUNT], const Item& item, int block_column,
                                          int first_rank) const {
        const bool a = item.side == side_a;
        const LoraGradientArgs& side = a ? args.a : args.b;
        const int64 wide = a ? C::WIDE_A : C::WIDE_B;
        const int lane = static_cast<int>(threadIdx.x) % 32;
        const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
        const int end = item.column + item.width;
        const bool odd = lane / 4 % 2 != 0;
#pragma unroll
        for (int i = 0; i < COUNT / 2; ++i) {
            const int column = block_column + warp * 16 + lane / 4 + i % 2 * 8;
            const int rank = first_rank + i / 2 * 8 + lane % 4 * 2;
            const float first = sums[i * 2];
            const float second = sums[i * 2 + 1];
            if (item.slot >= 0) {
                if (column >= end) continue;
                auto* const to = static_cast<float*>(side.partials) +
                                 (static_cast<int64>(item.slot) * C::RANK + rank) * wide + column;
                if (rank < C::RANK) store_pair(to, wide, first, second, rank + 1 < C::RANK);
                continue;
            }
            auto* const out =
                static_cast<Output*>(side.out) + GradientGroups<C>::adapter_of(item.group) * side.out_expert_stride;
            if (sizeof(Output) == 2 && side.out_wide_stride == 1) {
                // Of two lanes with neighbouring columns one takes the first rank and the other the second.
                const float other = __shfl_xor_sync(0xffffffffU, odd ? first : second, 4);
                const int own_rank = rank + (odd ? 1 : 0);
                const int own_column = column - (odd ? 1 : 0);
                if (own_column >= end || own_rank >= C::RANK) continue;
                store_pair(out + own_rank * side.out_rank_stride + own_column, 1, odd ? other : first,
                           odd ? second : other, true);
            } else {
                if (column >= end || rank >= C::RANK) continue;
                store_pair(out + column * side.out_wide_stride + rank * side.out_rank_stride, side.out_rank_stride,
                           first, second, rank + 1 < C::RANK);
            }
        }
    }

    __device__ __forceinline__ void run(const Item& item) {
        float low[C::BLOCKS][low_sums] = {};
        float high[C::BLOCKS][high_sums] = {};
        int last = -1;
#pragma unroll 1
        for (int row = item.begin; row < item.end; row += C::STEP_ROWS) {
            ptx::mbarrier_wait(L::filled(base, ring.stage), ring.parity);
            // The rows came through the generic proxy.
            ptx::fence_proxy_async();
            multiply(low, high);
            // The step before is done; its stage can be filled again.
            ptx::wgmma_wait<1>();
            if (last >= 0) give_back(last);
            last = ring.stage;
            ring.next();
        }
        ptx::wgmma_wait<0>();
        if (last >= 0) give_back(last);
#pragma unroll
        for (int m = 0; m < C::BLOCKS; ++m) {
            ptx::wgmma_hold(low[m]);
            if constexpr (L::high_ranks > 0) ptx::wgmma_hold(high[m]);
        }
#pragma unroll
        for (int m = 0; m < C::BLOCKS; ++m) {
            const int column = item.column + (first_block + m) * block_columns;
            write(low[m], item, column, 0);
            if constexpr (L::high_ranks > 0) write(high[m], item, column, L::low_ranks);
        }
    }
};

template <class C>
__device__ __forceinline__ void consume(const Items<C>& items, const LoraGradientPair& args, unsigned base,
                                        int warpgroup) {
    Consumer<C> consumer{args, base, warpgroup * C::BLOCKS};
    const int count = items.count();
    for (int i = static_cast<int>(blockIdx.x); i < count; i += static_cast<int>(gridDim.x)) consumer.run(items.at(i));
}

}  // namespace smlora::lora_gradient_wgmma
