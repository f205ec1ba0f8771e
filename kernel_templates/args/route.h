// Arguments of the route kernels, shared by the host and the kernels.
#pragma once

#include "args/integers.h"

namespace smlora {

/// A stable counting sort of top_idx [M] by expert; values outside 0 .. E-1 leave an entry out and come last, in order,
/// with expert E. Two ways lead to the same result:
///
///   route_count, route_scan, route_scatter, one after the other, for any M. The entries are cut into `blocks`
///   contiguous chunks of `chunk` entries (the last may be shorter), blocks = max(1, ceil(M / chunk)).
///     COLUMNS = route_columns(E); workspace `counts`: (blocks + 1) * COLUMNS ints, not initialised.
///     route_count    grid `blocks`,       256 threads (any multiple of 32), no dynamic shared memory
///     route_scan     grid COLUMNS / 32,  1024 threads (THREADS),            no dynamic shared memory
///     route_scatter  grid `blocks`,       256 threads (THREADS),            no dynamic shared memory
///     Any chunk is right; two blocks for each multiprocessor and at least 2048 entries a block, a multiple of THREADS,
///     is a sound choice: chunk = max(2048, round_up(ceil(M / (2 multiprocessors)), 256)). M = 0 needs all three.
///
///   route_small, one launch for M <= CAPACITY <= 65536: grid 1, THREADS threads, dynamic shared memory of
///     route_small::shared_memory(E, THREADS, CAPACITY); `counts`, `blocks`, `chunk` are not used.
///
/// route_reference: grid 1, 32 threads; `counts`, `blocks`, `chunk` are not used.
struct RouteKernelArgs {
    const void* top_idx;          ///< [M], C::Input
    void* sorted_expert_idxs;     ///< [M], C::Index
    void* sorted_scattered_idxs;  ///< [M], C::Index
    void* expert_offsets;         ///< [E], C::Index, inclusive
    int* counts;                  ///< [blocks + 1, COLUMNS]: a row for each block, then the totals
    int blocks;
    int chunk;  ///< at most 2^30 unless blocks is 1
    int M;
};

/// Columns of a table of counts: one for each expert, one (number E) for entries left out, padded to whole warps.
constexpr int route_columns(int E) { return round_up(E + 1, 32); }

namespace route_small {

/// Where everything begins, in bytes.
struct SharedMemory {
    int starts;     ///< COLUMNS x 4: the totals, then the first position of each expert
    int cursors;    ///< WARPS x COLUMNS x 4: a warp's counts, then the next position of each expert in its part
    int warp_sums;  ///< WARPS x 4
    int order;      ///< CAPACITY x 2: the entry of each position
    int bytes;      ///< in all
};

constexpr SharedMemory shared_memory(int E, int threads, int capacity) {
    const int warps = threads / 32;
    SharedMemory memory{};
    memory.cursors = memory.starts + route_columns(E) * 4;
    memory.warp_sums = memory.cursors + warps * route_columns(E) * 4;
    memory.order = memory.warp_sums + warps * 4;
    memory.bytes = memory.order + capacity * 2;
    return memory;
}

}  // namespace route_small
}  // namespace smlora
