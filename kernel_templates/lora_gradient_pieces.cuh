// How the gradients of the adapter are cut into pieces of work, for lora_gradient_mma and lora_gradient_reduce.
#pragma once

#include "args/lora_gradient.h"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora {

enum GradientSide : int { side_a = 0, side_b = 1 };

/// An expert with more than `chunk_rows` rows is cut into chunks, so that its sums do not fall to one block.
template <class Index>
__device__ __forceinline__ int gradient_chunks(const Index* expert_offsets, int expert, int chunk_rows) {
    const int rows = static_cast<int>(expert_offsets[expert]) - first_row(expert_offsets, expert);
    return rows > chunk_rows ? ceil_div(rows, chunk_rows) : 1;
}

/// Chunks before each expert, counting only experts with several: their slots in `partials`.
template <int E, int THREADS, class Index>
__device__ __forceinline__ void gradient_slots(int* slots, int* warp_totals, const Index* expert_offsets,
                                               int chunk_rows) {
    prefix_counts<E, THREADS>(slots, warp_totals, [&](int expert) {
        const int chunks = gradient_chunks(expert_offsets, expert, chunk_rows);
        return chunks > 1 ? chunks : 0;
    });
}

}  // namespace smlora
