// Adds up the partial sums that lora_gradient_mma leaves for experts with several chunks of rows, in the order of the
// chunks, for both gradients. A persistent grid walks the items (expert with several chunks, piece of its sums); with
// an even routing there are none, and a block ends after it has looked at the row counts.
//
// Shared memory (dynamic)
//   slots        (E + 1) x 4   see gradient_slots
//   order        (E + 1) x 4   experts with several chunks before each expert
//   warp_totals  8 x 4
//
// Compile-time (struct C): E, WIDE_A, WIDE_B, RANK; types Output, Index. 256 threads.
#pragma once

#include "args/lora_gradient.h"
#include "lora_gradient_pieces.cuh"
#include "ptx/synchronise.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_reduce {

using Args = LoraGradientPair;

constexpr int block_threads = 256;
constexpr int piece = 4 * block_threads;

/// One piece of the sums of `expert`, `size` in all.
template <class C, int WIDE>
__device__ __forceinline__ void add_up(const LoraGradientArgs& args, int expert, int64 slot, int chunks, int64 first) {
    constexpr int64 size = static_cast<int64>(C::RANK) * WIDE;
    const float* const partials = static_cast<const float*>(args.partials) + slot * size;
#pragma unroll
    for (int k = 0; k < piece / block_threads; ++k) {
        const int64 i = first + k * block_threads + threadIdx.x;
        if (i >= size) break;
        float sum = 0.0F;
        for (int chunk = 0; chunk < chunks; ++chunk) sum += partials[chunk * size + i];
        const int64 to =
            expert * args.out_expert_stride + i % WIDE * args.out_wide_stride + i / WIDE * args.out_rank_stride;
        static_cast<typename C::Output*>(args.out)[to] = from_float<typename C::Output>(sum);
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    extern __shared__ __align__(16) unsigned char shared[];
    int* const slots = reinterpret_cast<int*>(shared);
    int* const order = slots + C::E + 1;
    int* const warp_totals = order + C::E + 1;
    const auto* const offsets = static_cast<const typename C::Index*>(args.a.expert_offsets);
    const int chunk_rows = args.a.chunk_rows;
    gradient_slots<C::E, block_threads>(slots, warp_totals, offsets, chunk_rows);
    prefix_counts<C::E, block_threads>(
        order, warp_totals, [&](int expert) { return gradient_chunks(offsets, expert, chunk_rows) > 1 ? 1 : 0; });
    // The partial sums, unlike the row counts, are the last kernel's.
    ptx::wait_for_earlier_kernels();

    constexpr int64 pieces_a = (static_cast<int64>(C::RANK) * C::WIDE_A + piece - 1) / piece;
    constexpr int64 pieces_b = (static_cast<int64>(C::RANK) * C::WIDE_B + piece - 1) / piece;
    const int64 items = order[C::E] * (pieces_a + pieces_b);
    for (int64 item = blockIdx.x; item < items; item += gridDim.x) {
        const int expert = group_of<C::E>(order, static_cast<int>(item / (pieces_a + pieces_b)));
        const int chunks = slots[expert + 1] - slots[expert];
        const int64 own = item % (pieces_a + pieces_b);
        if (own < pieces_a) {
            if constexpr (C::WIDE_A > 0) add_up<C, C::WIDE_A>(args.a, expert, slots[expert], chunks, own * piece);
        } else {
            if constexpr (C::WIDE_B > 0) {
                add_up<C, C::WIDE_B>(args.b, expert, slots[expert], chunks, (own - pieces_a) * piece);
            }
        }
    }
}

}  // namespace smlora::lora_gradient_reduce
