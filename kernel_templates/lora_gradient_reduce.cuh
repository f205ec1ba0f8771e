// Adds up the partial sums that lora_gradient_mma leaves for experts with several chunks of rows, in the order of the
// chunks. A persistent grid walks the items (expert with several chunks, piece of its RANK x WIDE sums); with an even
// routing there are none, and a block ends after it has looked at the row counts.
//
// Shared memory (dynamic)
//   slots        (E + 1) x 4   chunks of the experts with several before each expert: their slots in `partials`
//   order        (E + 1) x 4   experts with several chunks before each expert
//   warp_totals  8 x 4
//
// Compile-time (struct C): E, WIDE, RANK; types Output, Index. 256 threads.
#pragma once

#include "args/lora_gradient.h"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_reduce {

using Args = LoraGradientArgs;

constexpr int block_threads = 256;
constexpr int piece = 4 * block_threads;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    extern __shared__ __align__(16) unsigned char shared[];
    int* const slots = reinterpret_cast<int*>(shared);
    int* const order = slots + C::E + 1;
    int* const warp_totals = order + C::E + 1;
    const auto* const offsets = static_cast<const typename C::Index*>(args.expert_offsets);

    auto chunks_of = [&](int expert) {
        const int rows = static_cast<int>(offsets[expert]) - first_row(offsets, expert);
        return rows > args.chunk_rows ? ceil_div(rows, args.chunk_rows) : 0;
    };
    prefix_counts<C::E, block_threads>(slots, warp_totals, chunks_of);
    prefix_counts<C::E, block_threads>(order, warp_totals, [&](int expert) { return chunks_of(expert) > 0 ? 1 : 0; });

    constexpr int64 size = static_cast<int64>(C::RANK) * C::WIDE;
    constexpr int64 pieces = (size + piece - 1) / piece;
    const int64 items = order[C::E] * pieces;
    for (int64 item = blockIdx.x; item < items; item += gridDim.x) {
        const int expert = group_of<C::E>(order, static_cast<int>(item / pieces));
        const int chunks = slots[expert + 1] - slots[expert];
        const float* const partials = static_cast<const float*>(args.partials) + slots[expert] * size;
#pragma unroll
        for (int k = 0; k < piece / block_threads; ++k) {
            const int64 i = item % pieces * piece + k * block_threads + threadIdx.x;
            if (i >= size) break;
            float sum = 0.0F;
            for (int chunk = 0; chunk < chunks; ++chunk) sum += partials[chunk * size + i];
            const int64 to = expert * args.out_expert_stride + i % C::WIDE * args.out_wide_stride +
                             i / C::WIDE * args.out_rank_stride;
            static_cast<typename C::Output*>(args.out)[to] = from_float<typename C::Output>(sum);
        }
    }
}

}  // namespace smlora::lora_gradient_reduce
