// The warpgroups that multiply and write.
#pragma once

#include "lora_gradient_wgmma/layout.cuh"
#include "lora_gradient_wgmma/writer.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/synchronise.cuh"
#include "ptx/wgmma.cuh"
#include "ring.cuh"
#include "wgmma_operand.cuh"

namespace smlora::lora_gradient_wgmma {

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
    const Item* announced;  ///< in shared memory: a ring
    int first_block;        ///< of the span's blocks, of BLOCKS
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

    __device__ __forceinline__ void wait_filled() const {
        ptx::mbarrier_wait(L::filled(base, ring.stage), ring.parity);
    }

    /// All sums of an item whose first step is there, and what becomes of them.
    __device__ __forceinline__ void do_item(const Item& item) {
        float low[C::BLOCKS][low_sums] = {};
        float high[C::BLOCKS][high_sums] = {};
        int last = -1;
#pragma unroll 1
        for (int row = item.begin; row < item.end; row += C::STEP_ROWS) {
            wait_filled();
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
        if (last < 0) {
            last = ring.stage;
            ring.next();
        }
        give_back(last);
#pragma unroll
        for (int m = 0; m < C::BLOCKS; ++m) {
            ptx::wgmma_hold(low[m]);
            if constexpr (L::high_ranks > 0) ptx::wgmma_hold(high[m]);
        }
        const Writer<C> writer{item, args, item.column + first_block * block_columns};
        writer.template write<L::low_ranks>(low, 0);
        if constexpr (L::high_ranks > 0) writer.template write<L::high_ranks>(high, L::low_ranks);
    }

    __device__ __forceinline__ void run() {
        for (int place = 0;; place = place + 1 == taken_items(C::STAGES) ? 0 : place + 1) {
            wait_filled();
            const Item item = announced[place];
            if (item.group < 0) return;
            __syncwarp();  // all lanes have it before the first gives the stage back
            do_item(item);
        }
    }
};

}  // namespace smlora::lora_gradient_wgmma
