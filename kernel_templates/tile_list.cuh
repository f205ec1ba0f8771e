// The work list of a persistent kernel, made by each block from the device-side row counts: no launch of its own, no
// host synchronisation.
#pragma once

#include "types.cuh"

namespace smlora {

/// Inclusive prefix sums of `count(group)` for groups 0 .. GROUPS-1 in `prefix[1..GROUPS]`, prefix[0] = 0. Called by
/// all THREADS threads of a block; ends with a barrier. `warp_totals` has THREADS / 32 elements.
template <int GROUPS, int THREADS, class Count>
__device__ __forceinline__ void prefix_counts(int* prefix, int* warp_totals, Count count) {
    constexpr int per_thread = (GROUPS + THREADS - 1) / THREADS;
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread & 31;
    const int warp = thread >> 5;
    const int first = thread * per_thread;

    int own = 0;
    for (int i = 0; i < per_thread; ++i) {
        if (first + i < GROUPS) own += count(first + i);
    }
    int inclusive = own;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffU, inclusive, step);
        if (lane >= step) inclusive += other;
    }
    if (lane == 31) warp_totals[warp] = inclusive;
    __syncthreads();
    int running = inclusive - own;
    for (int w = 0; w < warp; ++w) running += warp_totals[w];
    if (thread == 0) prefix[0] = 0;
    for (int i = 0; i < per_thread; ++i) {
        if (first + i < GROUPS) {
            running += count(first + i);
            prefix[first + i + 1] = running;
        }
    }
    __syncthreads();
}

/// The group g with prefix[g] <= item < prefix[g + 1].
template <int GROUPS>
__device__ __forceinline__ int group_of(const int* prefix, int item) {
    int low = 0;
    int high = GROUPS;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (prefix[middle] <= item) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

}  // namespace smlora
