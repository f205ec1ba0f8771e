// Plain reference of the route kernels: one thread goes over the entries twice.
//
// Compile-time (struct C): E; types Input (of top_idx), Index.
#pragma once

#include "args/route.h"
#include "route_steps.cuh"
#include "types.cuh"

namespace smlora::route_reference {

using Args = RouteKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Index = typename C::Index;
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    const auto* const top_idx = static_cast<const typename C::Input*>(args.top_idx);
    auto* const sorted_expert_idxs = static_cast<Index*>(args.sorted_expert_idxs);
    auto* const sorted_scattered_idxs = static_cast<Index*>(args.sorted_scattered_idxs);
    auto* const expert_offsets = static_cast<Index*>(args.expert_offsets);

    for (int expert = 0; expert < C::E; ++expert) expert_offsets[expert] = 0;
    for (int64 entry = 0; entry < args.M; ++entry) {
        const int column = route::column_of<C>(top_idx, entry);
        if (column < C::E) ++expert_offsets[column];
    }
    Index next = 0;
    for (int expert = 0; expert < C::E; ++expert) {
        const Index count = expert_offsets[expert];
        expert_offsets[expert] = next;
        next += count;
    }
    // expert_offsets holds the next position of each expert; when all are placed, that is one past its last.
    for (int64 entry = 0; entry < args.M; ++entry) {
        const int column = route::column_of<C>(top_idx, entry);
        const Index position = column < C::E ? expert_offsets[column]++ : next++;
        sorted_expert_idxs[position] = static_cast<Index>(column);
        sorted_scattered_idxs[position] = static_cast<Index>(entry);
    }
}

}  // namespace smlora::route_reference
