// Second of three kernels that sort the entries of top_idx by expert: turns the counts of each chunk into the number of
// entries of the same expert in the chunks before it, and writes the totals as one more row.
//
// Roles: a block takes 32 columns, lane l column l, so that every access is a whole line; warp w takes the w-th part of
// the rows: sums it, waits for the sums of the parts before it, then goes over it again.
//
// Shared memory: sums, THREADS x 4.
//
// Compile-time (struct C): E, THREADS (of the launch, a multiple of 32).
#pragma once

#include "args/route.h"
#include "route_steps.cuh"
#include "types.cuh"

namespace smlora::route_scan {

using Args = RouteKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    constexpr int columns = route_columns(C::E);
    constexpr int warps = C::THREADS / 32;
    __shared__ int sums[warps][32];
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int warp = static_cast<int>(threadIdx.x / 32);

    int* const column = args.counts + blockIdx.x * 32 + lane;
    const int rows_of_warp = ceil_div(args.blocks, warps);
    const int begin = warp * rows_of_warp;
    const int end = begin + rows_of_warp < args.blocks ? begin + rows_of_warp : args.blocks;

    int sum = 0;
#pragma unroll 8
    for (int row = begin; row < end; ++row) sum += column[static_cast<int64>(row) * columns];
    sums[warp][lane] = sum;
    __syncthreads();

    int running = 0;
    for (int w = 0; w < warp; ++w) running += sums[w][lane];
    if (warp == warps - 1) column[static_cast<int64>(args.blocks) * columns] = running + sum;
#pragma unroll 8
    for (int row = begin; row < end; ++row) {
        int* const count = column + static_cast<int64>(row) * columns;
        const int own = *count;
        *count = running;
        running += own;
    }
}

}  // namespace smlora::route_scan
