// Adds up the partial sums that lora_gradient_mma or lora_gradient_bulk leaves for experts with several chunks of rows,
// in the order of the chunks, for both gradients. A persistent grid walks the items (expert with several chunks, piece
// of its sums); with an even routing there are none, and a block ends after it has looked at the row counts.
//
// Shared memory (dynamic): args/lora_gradient_reduce.h.
//
// Compile-time (struct C): E, WIDE_A, WIDE_B, RANK; types Output, Index. 256 threads.
#pragma once

#include "args/lora_gradient.h"
#include "args/lora_gradient_reduce.h"
#include "lora_gradient_pieces.cuh"
#include "ptx/synchronise.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_reduce {

using Args = LoraGradientPair;

/// One piece of the sums of adapter `adapter`: some ranks of as many columns as there are threads, the ranks fastest,
/// so that blocks that run together write neighbours where the ranks are contiguous.
template <class C, int WIDE>
__device__ __forceinline__ void add_up(const LoraGradientArgs& args, int adapter, int slot, int chunks, int piece) {
    using Output = typename C::Output;
    constexpr int64 size = static_cast<int64>(C::RANK) * WIDE;
    constexpr int rank_pieces = ceil_div(C::RANK, own_ranks);
    const int first_rank = piece % rank_pieces * own_ranks;
    const int column = piece / rank_pieces * block_threads + static_cast<int>(threadIdx.x);
    if (column >= WIDE) return;
    const float* from =
        static_cast<const float*>(args.partials) + slot * size + static_cast<int64>(first_rank) * WIDE + column;
    float sums[own_ranks] = {};
#pragma unroll 4
    for (int chunk = 0; chunk < chunks; ++chunk, from += size) {
#pragma unroll
        for (int r = 0; r < own_ranks; ++r) {
            if (first_rank + r < C::RANK) sums[r] += from[static_cast<int64>(r) * WIDE];
        }
    }
    auto* const to = static_cast<Output*>(args.out) + adapter * args.out_expert_stride + column * args.out_wide_stride +
                     first_rank * args.out_rank_stride;
    constexpr int bytes = own_ranks * static_cast<int>(sizeof(Output));
    if (C::RANK % own_ranks == 0 && args.out_rank_stride == 1 && reinterpret_cast<uint64>(args.out) % bytes == 0 &&
        keeps<Output>(args.out_expert_stride, bytes) && keeps<Output>(args.out_wide_stride, bytes)) {
        store_neighbours(to, sums, true);
        return;
    }
#pragma unroll
    for (int r = 0; r < own_ranks; ++r) {
        if (first_rank + r < C::RANK) to[r * args.out_rank_stride] = from_float<Output>(sums[r]);
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    extern __shared__ __align__(16) unsigned char shared[];
    constexpr SharedMemory memory = shared_memory(C::E);
    int* const slots = reinterpret_cast<int*>(shared + memory.slots);
    int* const order = reinterpret_cast<int*>(shared + memory.order);
    int* const warp_totals = reinterpret_cast<int*>(shared + memory.warp_totals);
    const GradientGroups<C> groups{static_cast<const typename C::Index*>(args.a.expert_offsets), args.a.M};
    const int uncut_rows = args.a.uncut_rows;
    gradient_slots<block_threads, C>(slots, warp_totals, groups, uncut_rows);
    prefix_counts<C::E, block_threads>(
        order, warp_totals, [&](int group) { return gradient_chunks<C>(groups, group, uncut_rows) > 1 ? 1 : 0; });
    // The partial sums, unlike the row counts, are the last kernel's.
    ptx::wait_for_earlier_kernels();

    constexpr int pieces_a = pieces(C::WIDE_A, C::RANK);
    constexpr int pieces_b = pieces(C::WIDE_B, C::RANK);
    const int items = order[C::E] * (pieces_a + pieces_b);
    for (int item = static_cast<int>(blockIdx.x); item < items; item += static_cast<int>(gridDim.x)) {
        const int group = group_of<C::E>(order, item / (pieces_a + pieces_b));
        const int chunks = slots[group + 1] - slots[group];
        const int own = item % (pieces_a + pieces_b);
        if (own < pieces_a) {
            if constexpr (C::WIDE_A > 0)
                add_up<C, C::WIDE_A>(args.a, groups.adapter_of(group), slots[group], chunks, own);
        } else {
            if constexpr (C::WIDE_B > 0)
                add_up<C, C::WIDE_B>(args.b, groups.adapter_of(group), slots[group], chunks, own - pieces_a);
        }
    }
}

}  // namespace smlora::lora_gradient_reduce
