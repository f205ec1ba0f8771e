// Sorts the entries of top_idx by expert in one launch of one block, for M <= CAPACITY.
//
// Roles: warp w takes the w-th part of the entries. Each warp counts its part; the block adds the parts up and scans
// the experts; each warp places its entries in order, in shared memory, so that the arrays are written in whole lines;
// a warp at a time writes the expert of one run of positions.
//
// Shared memory (dynamic): args/route.h.
//
// Compile-time (struct C): E, THREADS (of the launch, a multiple of 32), CAPACITY (at most 65536); types Input (of
// top_idx), Index.
#pragma once

#include "args/route.h"
#include "route_steps.cuh"
#include "types.cuh"

namespace smlora::route_small {

using Args = RouteKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    constexpr int columns = route_columns(C::E);
    constexpr int warps = C::THREADS / 32;
    static_assert(C::CAPACITY <= 65536, "entries are kept in 16 bits");
    constexpr SharedMemory memory = shared_memory(C::E, C::THREADS, C::CAPACITY);
    extern __shared__ int shared[];
    int* const starts = shared + memory.starts / 4;
    int* const cursors = shared + memory.cursors / 4;
    int* const warp_sums = shared + memory.warp_sums / 4;
    uint16* const order = reinterpret_cast<uint16*>(shared + memory.order / 4);

    const auto* const top_idx = static_cast<const typename C::Input*>(args.top_idx);
    auto* const sorted_expert_idxs = static_cast<typename C::Index*>(args.sorted_expert_idxs);
    auto* const sorted_scattered_idxs = static_cast<typename C::Index*>(args.sorted_scattered_idxs);
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % 32;
    const int warp = thread / 32;
    int* const own_cursors = cursors + warp * columns;

    const int part = ceil_div(ceil_div(args.M, warps), 32) * 32;
    const int begin = warp * part < args.M ? warp * part : args.M;
    const int end = begin + part < args.M ? begin + part : args.M;

    for (int at = thread; at < warps * columns; at += C::THREADS) cursors[at] = 0;
    __syncthreads();

    route::count_entries<C, 32>(own_cursors, top_idx, begin, end, lane);
    __syncthreads();

    for (int column = thread; column < columns; column += C::THREADS) {
        int total = 0;
        for (int w = 0; w < warps; ++w) total += cursors[w * columns + column];
        starts[column] = total;
    }
    __syncthreads();
    route::scan_columns<columns, C::THREADS>(starts, warp_sums);

    route::write_offsets<C>(starts, args.expert_offsets);
    for (int column = thread; column < columns; column += C::THREADS) {
        int position = starts[column];
        for (int w = 0; w < warps; ++w) {
            const int count = cursors[w * columns + column];
            cursors[w * columns + column] = position;
            position += count;
        }
    }
    __syncthreads();

    route::place_entries<C>(own_cursors, top_idx, begin, end,
                            [&](int position, int64 entry, int) { order[position] = static_cast<uint16>(entry); });
    __syncthreads();

    for (int position = thread; position < args.M; position += C::THREADS) {
        sorted_scattered_idxs[position] = static_cast<typename C::Index>(order[position]);
    }
    for (int column = warp; column <= C::E; column += warps) {
        const int run_end = column == C::E ? args.M : starts[column + 1];
        for (int position = starts[column] + lane; position < run_end; position += 32) {
            sorted_expert_idxs[position] = static_cast<typename C::Index>(column);
        }
    }
}

}  // namespace smlora::route_small
