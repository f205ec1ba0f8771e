// The warpgroup that fills the stages: rows gathered with cp.async.
#pragma once

#include "lora_gradient_wgmma/layout.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/shared.cuh"
#include "ptx/synchronise.cuh"
#include "ring.cuh"
#include "swizzle.cuh"

namespace smlora::lora_gradient_wgmma {

template <class C>
struct Producer {
    using L = Layout<C>;
    using Element = typename C::Element;

    /// Eight threads copy 128 bytes of a row, 16 rows a pass.
    static constexpr int passes = C::STEP_ROWS / 16;
    static constexpr int rank_blocks = ceil_div(L::ranks, block_columns);

    const LoraGradientPair& args;
    unsigned base;
    int chunk;    ///< of a row's 128 bytes
    int own_row;  ///< of a pass
    Ring<C::STAGES> ring;

    /// The flat entries of this thread's rows of a step, 0 beyond the end.
    __device__ __forceinline__ void look_up(int (&flat)[passes], int first, int end) const {
        const auto* const scattered = static_cast<const typename C::Index*>(args.a.scattered_idxs);
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
            const int position = first + own_row + pass * 16;
            flat[pass] = position < end ? static_cast<int>(scattered[position]) : 0;
        }
    }

    /// Where this thread's chunk of a row lies in block `block` of what begins at `target`.
    [[nodiscard]] __device__ __forceinline__ unsigned place(unsigned target, int block, int pass) const {
        return target + static_cast<unsigned>(block * L::memory.block_bytes) + swizzled<8>(own_row + pass * 16, chunk);
    }

    /// Rows beyond the end are zeros: what lies there is multiplied, too.
    __device__ __forceinline__ void copy_ranks(unsigned target, const Element* rank_rows, int first, int end) const {
#pragma unroll
        for (int block = 0; block < rank_blocks; ++block) {
            const int rank = block * block_columns + chunk * 8;
            if (rank >= L::ranks) continue;  // never read
#pragma unroll
            for (int pass = 0; pass < passes; ++pass) {
                const int position = first + own_row + pass * 16;
                const bool inside = position < end;
                const Element* const from =
                    inside ? rank_rows + static_cast<int64>(position) * C::RANK_STRIDE + rank : rank_rows;
                ptx::cp_async_16(place(target, block, pass), from, inside ? 16U : 0U);
            }
        }
    }

    /// The same, times the gates of the rows.
    __device__ __forceinline__ void store_ranks(unsigned target, const Element* rank_rows, const int (&flat)[passes],
                                                int first, int end) const {
        const auto* const gates = static_cast<const typename C::Gate*>(args.a.gates);
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
            const int position = first + own_row + pass * 16;
            const bool inside = position < end;
            const float gate = inside ? to_float(gates[flat[pass]]) : 0.0F;
#pragma unroll
            for (int block = 0; block < rank_blocks; ++block) {
                const int rank = block * block_columns + chunk * 8;
                if (rank >= L::ranks) continue;
                Vec16 values{};
                if (inside) {
                    values = *reinterpret_cast<const Vec16*>(rank_rows + static_cast<int64>(position) * C::RANK_STRIDE +
                                                             rank);
                }
#pragma unroll
                for (int w = 0; w < 4; ++w) {
                    const float low = to_float(Element{static_cast<uint16>(values.word[w] & 0xffffU)});
                    const float high = to_float(Element{static_cast<uint16>(values.word[w] >> 16)});
                    values.word[w] = pack2<Element>(low * gate, high * gate);
                }
                ptx::store_shared(place(target, block, pass), values.word);
            }
        }
    }

    __device__ __forceinline__ void copy(const Item& item) {
        const bool a = item.side == side_a;
        const LoraGradientArgs& side = a ? args.a : args.b;
        const auto* const wide = static_cast<const Element*>(side.wide) + item.column + chunk * 8;
        const auto* const rank_rows = static_cast<const Element*>(side.rank_rows);
        const int64 pitch = side.wide_stride;
        int flat[passes];
        look_up(flat, item.begin, item.end);
        for (int first = item.begin; first < item.end; first += C::STEP_ROWS) {
            const Element* from[passes];
            bool inside[passes];
#pragma unroll
            for (int pass = 0; pass < passes; ++pass) {
                const int position = first + own_row + pass * 16;
                inside[pass] = position < item.end;
                const int row = a ? RowsA<C>::index(position, flat[pass]) : RowsB<C>::index(position, flat[pass]);
                from[pass] = inside[pass] ? wide + row * pitch : wide;
            }
            const unsigned stage = base + static_cast<unsigned>(ring.stage * L::memory.stage_bytes);
            const unsigned barrier = L::filled(base, ring.stage);
            ptx::mbarrier_wait(L::emptied(base, ring.stage), ring.parity ^ 1U);
#pragma unroll
            for (int block = 0; block < warpgroups * C::BLOCKS; ++block) {
                const bool has_columns = block * block_columns + chunk * 8 < item.width;
#pragma unroll
                for (int pass = 0; pass < passes; ++pass) {
                    const bool there = has_columns && inside[pass];
                    ptx::cp_async_16(place(stage, block, pass), there ? from[pass] + block * block_columns : rank_rows,
                                     there ? 16U : 0U);
                }
            }
            const unsigned ranks = stage + static_cast<unsigned>(L::memory.stage_ranks);
            if constexpr (C::HAS_GATES != 0) {
                store_ranks(ranks, rank_rows, flat, first, item.end);
                ptx::fence_proxy_async();
                ptx::mbarrier_arrive(barrier);
            } else {
                copy_ranks(ranks, rank_rows, first, item.end);
            }
            ptx::cp_async_arrive(barrier);
            look_up(flat, first + C::STEP_ROWS, item.end);
            ring.next();
        }
    }
};

template <class C>
__device__ __forceinline__ void produce(const Items<C>& items, const LoraGradientPair& args, unsigned base) {
    const int thread = static_cast<int>(threadIdx.x) & 127;
    Producer<C> producer{args, base, thread & 7, thread >> 3};
    const int count = items.count();
    for (int i = static_cast<int>(blockIdx.x); i < count; i += static_cast<int>(gridDim.x)) producer.copy(items.at(i));
}

}  // namespace smlora::lora_gradient_wgmma
