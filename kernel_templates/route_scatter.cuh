// Third of three kernels that sort the entries of top_idx by expert: places the entries, and writes expert_offsets.
//
// Roles: block b takes chunk b, warp w the w-th part of it. Each warp counts its part; the block scans the totals into
// the first position of each expert; then the first position of (expert, chunk, part) is known, and each warp places
// its entries in order. Block 0 writes expert_offsets.
//
// Shared memory
//   starts     COLUMNS x 4          the totals, then the first position of each expert
//   cursors    WARPS x COLUMNS x 4  a warp's counts, then the next position of each expert in its part
//   warp_sums  WARPS x 4
//
// Compile-time (struct C): E, THREADS (of the launch, a multiple of 32); types Input (of top_idx), Index.
#pragma once

#include "args/route.h"
#include "route_steps.cuh"
#include "types.cuh"

namespace smlora::route_scatter {

using Args = RouteKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    constexpr int columns = route_columns(C::E);
    constexpr int warps = C::THREADS / 32;
    static_assert((columns * (warps + 1) + warps) * 4 <= 48 * 1024, "static shared memory");
    __shared__ int starts[columns];
    __shared__ int cursors[warps][columns];
    __shared__ int warp_sums[warps];

    const auto* const top_idx = static_cast<const typename C::Input*>(args.top_idx);
    auto* const sorted_expert_idxs = static_cast<typename C::Index*>(args.sorted_expert_idxs);
    auto* const sorted_scattered_idxs = static_cast<typename C::Index*>(args.sorted_scattered_idxs);
    const int* const totals = args.counts + static_cast<int64>(args.blocks) * columns;
    const int* const before_chunk = args.counts + static_cast<int64>(blockIdx.x) * columns;
    const int thread = static_cast<int>(threadIdx.x);
    const int warp = thread / 32;

    const int64 chunk_begin = static_cast<int64>(blockIdx.x) * args.chunk;
    const int64 chunk_end = route::lesser(chunk_begin + args.chunk, args.M);
    const int64 part = (static_cast<int64>(args.chunk) + warps - 1) / warps;
    const int64 begin = route::lesser(chunk_begin + warp * part, chunk_end);
    const int64 end = route::lesser(begin + part, chunk_end);

    for (int column = thread; column < columns; column += C::THREADS) {
        starts[column] = totals[column];
        for (int w = 0; w < warps; ++w) cursors[w][column] = 0;
    }
    __syncthreads();

    route::count_entries<C, 32>(cursors[warp], top_idx, begin, end, thread % 32);
    route::scan_columns<columns, C::THREADS>(starts, warp_sums);

    if (blockIdx.x == 0) route::write_offsets<C>(starts, args.expert_offsets);
    for (int column = thread; column < columns; column += C::THREADS) {
        int position = starts[column] + before_chunk[column];
        for (int w = 0; w < warps; ++w) {
            const int count = cursors[w][column];
            cursors[w][column] = position;
            position += count;
        }
    }
    __syncthreads();

    route::place_entries<C>(cursors[warp], top_idx, begin, end, [&](int position, int64 entry, int column) {
        sorted_scattered_idxs[position] = static_cast<typename C::Index>(entry);
        sorted_expert_idxs[position] = static_cast<typename C::Index>(column);
    });
}

}  // namespace smlora::route_scatter
