// Grouped product on Hopper's tensor cores (sm_90a): forward, dX and the base product.
//
// A persistent grid of one block a multiprocessor walks the tiles (group, column tile of 256, row tile of at most
// TILE_ROWS), row tiles fastest. A warpgroup copies: weights by TMA, gathered rows by cp.async into the same swizzled
// layout. Two multiply, 128 columns each, with the rows on wgmma's 8-granular n side. The fourth stores finished tiles
// to scattered rows, while the next is multiplied.
//
// LoRA lengthens the reduction: after the RED steps, rank rows times the adapter. Either the rank rows are read
// (lora_rows), or they are made on the way (MAKES_RANK_ROWS), since the rows pass through shared memory anyway: one
// more wgmma a step with the rows on the m side. The first column tiles, which come well before the others, make and
// write them and set a flag for their row tile; the others read them at the end of their reduction, after a look at
// the flag.
// Blocks take tiles from a counter, in order, so that every tile that is waited for is under way in a running block.
//
// A storing thread finds the block's tiles, ahead of the threads that work on them.
//
// Blocks of a CLUSTER of two take neighbouring row tiles of the same columns: each copies half of the weights to both.
//
// Roles: warpgroup 0 copies (producer.cuh), 1 stores (storer.cuh), 2 and 3 multiply (consumer.cuh).
// Shared memory: args/grouped_product_wgmma.h.
//
// Compile-time (struct C): E, RED, OUT, RANK (stride of the rank rows, a multiple of 8; 0: none), TOP_K, ROWS,
// OUT_ROWS, WEIGHT_MAJOR, LORA_MAJOR and RANK_MAJOR (0: reduction contiguous), HAS_BIAS, HAS_GATES, MAKES_RANK_ROWS,
// WEIGHTS_ONCE (each is read once and leaves L2 first), SLICE, COLUMN_TILES, CLUSTER (1 or 2), TILE_ROWS, ROW_STEP (8,
// 16, ..), STAGES, STAGING_ROWS;
// types Element, Weight (weight/plain.cuh), Gate, Index. RED and OUT are multiples of 8, every row 16-byte aligned.
#pragma once

#include "grouped_product_wgmma/consumer.cuh"
#include "grouped_product_wgmma/producer.cuh"
#include "grouped_product_wgmma/storer.cuh"

namespace smlora::grouped_product_wgmma {

using Args = GroupedProductWgmmaArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using L = Layout<C>;
    extern __shared__ __align__(1024) unsigned char shared[];
    auto* const prefix = reinterpret_cast<int*>(shared + L::memory.prefix);
    const unsigned base = ptx::shared_address(shared);
    const ProductGroups<C> groups{static_cast<const typename C::Index*>(args.product.expert_offsets), args.product.M};

    if (threadIdx.x == 0) {
        ptx::prefetch_tensor_map(args.weight_map);
        for (int stage = 0; stage < C::STAGES; ++stage) {
            ptx::mbarrier_init(L::filled(base, stage), 1 + 128);
            ptx::mbarrier_init(L::emptied(base, stage), 8 * C::CLUSTER);
        }
        for (int slot = 0; slot < L::slots; ++slot) {
            ptx::mbarrier_init(L::staged(base, slot), 256);
            ptx::mbarrier_init(L::stored(base, slot), 4);
        }
        ptx::mbarrier_init(L::left(base), L::leaving_warps);
        for (unsigned slot = 0; slot < tile_slots; ++slot) {
            ptx::mbarrier_init(L::announced(base, slot), 1);
            ptx::mbarrier_init(L::noted(base, slot), block_threads / 32);
        }
        ptx::mbarrier_init(L::item_told(base), 1);
        ptx::mbarrier_init(L::item_read(base), 1);
        ptx::fence_mbarrier_init();
    }
    // Asked for early: the answer takes a while.
    const int first_item = threadIdx.x == finder_thread ? TileFinder<C>::taken_item(args) : 0;
    ptx::let_next_kernel_begin();
    prefix_counts<groups.count, block_threads>(prefix, reinterpret_cast<int*>(shared + L::memory.warp_totals),
                                               [&](int group) { return row_tiles<C>(groups, group); });

    if constexpr (C::CLUSTER > 1) ptx::cluster_sync();  // the barriers of the other block are there

    const int warpgroup = static_cast<int>(threadIdx.x) / 128;
    if (warpgroup == 0) {
        ptx::give_registers_up<L::copying_registers>();
        produce<C>(args, base);
    } else if (warpgroup == 1) {
        ptx::give_registers_up<L::storing_registers>();
        store<C>(args, shared, base, first_item);
    } else {
        ptx::take_registers<L::multiplying_registers>();
        consume<C>(args, base, warpgroup - 2);
    }
    if constexpr (C::CLUSTER > 1) ptx::cluster_sync();  // the other block may still arrive at this one's barriers
}

}  // namespace smlora::grouped_product_wgmma
