// Arguments of the route kernels, shared by the host and the kernels.
#pragma once

namespace smlora {

/// A stable counting sort of top_idx [M] by expert; values outside 0 .. E-1 leave an entry out and come last, in order,
/// with expert E. Two ways lead to the same result:
///
///   route_count, route_scan, route_scatter, one after the other, for any M. The entries are cut into `blocks`
///   contiguous chunks of `chunk` entries (the last may be shorter), blocks = max(1, ceil(M / chunk)).
///     COLUMNS = E + 1 rounded up to 32; workspace `counts`: (blocks + 1) * COLUMNS ints, not initialised.
///     route_count    grid `blocks`,       256 threads (any multiple of 32), no dynamic shared memory
///     route_scan     grid COLUMNS / 32,  1024 threads (THREADS),            no dynamic shared memory
///     route_scatter  grid `blocks`,       256 threads (THREADS),            no dynamic shared memory
///     Any chunk is right; two blocks for each multiprocessor and at least 2048 entries a block, a multiple of THREADS,
///     is a sound choice: chunk = max(2048, round_up(ceil(M / (2 multiprocessors)), 256)). M = 0 needs all three.
///
///   route_small, one launch for M <= CAPACITY <= 65536: grid 1, THREADS threads, dynamic shared memory
///     4 * (COLUMNS * (THREADS / 32 + 1) + THREADS / 32) + 2 * CAPACITY bytes; `counts`, `blocks`, `chunk` are not
///     used.
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

}  // namespace smlora
