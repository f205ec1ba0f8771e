// The steps that the route kernels share: reading, counting and placing entries, and the scan over experts.
#pragma once

#include "args/route.h"
#include "types.cuh"

namespace smlora::route {

/// Entries that a thread has under way at once.
constexpr int unroll = 8;

/// The column of an entry: its expert, or E.
template <class C>
__device__ __forceinline__ int column_of(const typename C::Input* top_idx, int64 entry) {
    const typename C::Input expert = top_idx[entry];
    return expert >= 0 && expert < C::E ? static_cast<int>(expert) : C::E;
}

/// The columns of entries first, first + STEP, ..; -1 at and after `end`.
template <class C, int STEP>
__device__ __forceinline__ void read_columns(int (&column)[unroll], const typename C::Input* top_idx, int64 first,
                                             int64 end) {
#pragma unroll
    for (int u = 0; u < unroll; ++u) {
        const int64 entry = first + u * STEP;
        column[u] = entry < end ? column_of<C>(top_idx, entry) : -1;
    }
}

/// Adds entries [begin, end) to `counts` in shared memory; called by STEP threads, numbered by `thread`. Integer
/// atomics: the order does not show.
template <class C, int STEP>
__device__ __forceinline__ void count_entries(int* counts, const typename C::Input* top_idx, int64 begin, int64 end,
                                              int thread) {
    for (int64 first = begin + thread; first < end; first += unroll * STEP) {
        int column[unroll];
        read_columns<C, STEP>(column, top_idx, first, end);
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            if (column[u] >= 0) atomicAdd(&counts[column[u]], 1);
        }
    }
}

/// Gives entries [begin, end) their positions in order: `store(position, entry, column)`. cursors[column] is the next
/// position of the column among these entries, in shared memory. Called by a whole warp, which alone uses `cursors`.
template <class C, class Store>
__device__ __forceinline__ void place_entries(int* cursors, const typename C::Input* top_idx, int64 begin, int64 end,
                                              Store store) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (int64 first = begin; first < end; first += unroll * 32) {
        int column[unroll];
        read_columns<C, 32>(column, top_idx, first + lane, end);
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            const unsigned same = __match_any_sync(0xffffffffU, column[u]);
            const int before = __popc(same & ((1U << lane) - 1U));
            const int start = column[u] >= 0 ? cursors[column[u]] : 0;
            __syncwarp();  // every lane of the column has read its cursor
            if (column[u] >= 0) {
                if (before == 0) cursors[column[u]] = start + __popc(same);
                store(start + before, first + lane + u * 32, column[u]);
            }
            __syncwarp();  // the next entries see it moved
        }
    }
}

/// Replaces `values`, COLUMNS of them in shared memory, by their exclusive prefix sums. Called by all THREADS threads
/// of a block, after a barrier; ends with a barrier. `warp_sums` has THREADS / 32 elements.
template <int COLUMNS, int THREADS>
__device__ __forceinline__ void scan_columns(int* values, int* warp_sums) {
    constexpr int of_thread = ceil_div(COLUMNS, THREADS);
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % 32;
    const int warp = thread / 32;

    int own[of_thread];
    int sum = 0;
#pragma unroll
    for (int i = 0; i < of_thread; ++i) {
        const int column = thread * of_thread + i;
        own[i] = column < COLUMNS ? values[column] : 0;
        sum += own[i];
    }
    int inclusive = sum;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const int other = __shfl_up_sync(0xffffffffU, inclusive, distance);
        if (lane >= distance) inclusive += other;
    }
    if (lane == 31) warp_sums[warp] = inclusive;
    __syncthreads();
    int running = inclusive - sum;
    for (int w = 0; w < warp; ++w) running += warp_sums[w];
#pragma unroll
    for (int i = 0; i < of_thread; ++i) {
        const int column = thread * of_thread + i;
        if (column < COLUMNS) values[column] = running;
        running += own[i];
    }
    __syncthreads();
}

/// expert_offsets from the exclusive prefix sums of the columns; called by THREADS threads.
template <class C>
__device__ __forceinline__ void write_offsets(const int* starts, void* expert_offsets) {
    for (int expert = static_cast<int>(threadIdx.x); expert < C::E; expert += C::THREADS) {
        static_cast<typename C::Index*>(expert_offsets)[expert] = static_cast<typename C::Index>(starts[expert + 1]);
    }
}

__device__ __forceinline__ int64 lesser(int64 a, int64 b) { return a < b ? a : b; }

}  // namespace smlora::route
