// First of three kernels that sort the entries of top_idx by expert: counts the entries of each chunk.
//
// Roles: block b counts chunk b in shared memory and writes row b of `counts`, whole, so that nothing is initialised
// beforehand.
//
// Shared memory: counts, COLUMNS x 4.
//
// Compile-time (struct C): E, THREADS (of the launch); types Input (of top_idx), Index.
#pragma once

#include "args/route.h"
#include "route_steps.cuh"
#include "types.cuh"

namespace smlora::route_count {

using Args = RouteKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    constexpr int columns = route_columns(C::E);
    __shared__ int counts[columns];
    const int thread = static_cast<int>(threadIdx.x);

    for (int column = thread; column < columns; column += C::THREADS) counts[column] = 0;
    __syncthreads();

    const int64 begin = static_cast<int64>(blockIdx.x) * args.chunk;
    const int64 end = route::lesser(begin + args.chunk, args.M);
    route::count_entries<C, C::THREADS>(counts, static_cast<const typename C::Input*>(args.top_idx), begin, end,
                                        thread);
    __syncthreads();

    int* const row = args.counts + static_cast<int64>(blockIdx.x) * columns;
    for (int column = thread; column < columns; column += C::THREADS) row[column] = counts[column];
}

}  // namespace smlora::route_count
