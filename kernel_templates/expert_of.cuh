// The expert of a sorted position, and the number of positions that have one.
#pragma once

#include "types.cuh"

namespace smlora {

/// One past the last sorted position that belongs to an expert; the entries left out follow.
template <int E, class Index>
__device__ __forceinline__ int kept_rows(const Index* expert_offsets) {
    return static_cast<int>(expert_offsets[E - 1]);
}

/// The first e with position < expert_offsets[e]; `position` is below kept_rows.
template <int E, class Index>
__device__ __forceinline__ int expert_of(const Index* expert_offsets, int position) {
    int low = 0;
    int high = E - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (static_cast<int>(expert_offsets[middle]) <= position) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

}  // namespace smlora
