// The warpgroup that writes staged output tiles to their rows, while the next tile is multiplied.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "grouped_product_wgmma/tile.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/synchronise.cuh"
#include "rows.cuh"
#include "swizzle.cuh"

namespace smlora::grouped_product_wgmma {

constexpr int storer_barrier = 2;

/// The thread that finds the block's tiles, a storing one: those have the most time.
constexpr unsigned finder_thread = 128;

/// Writes zeros to the rows of a tile of entries left out, and to their rank rows.
template <class C>
__device__ __forceinline__ void clear(const GroupedProductWgmmaArgs& args, const Tile& tile, const unsigned* out_rows) {
    const int thread = static_cast<int>(threadIdx.x) & 127;
    auto* const out = static_cast<Vec16*>(args.product.out);
    const int chunks = C::OUT - tile.column < tile_columns ? (C::OUT - tile.column) / 8 : tile_columns / 8;
    for (int i = thread; i < tile.rows * chunks; i += 128) {
        out[out_rows[i / chunks] + static_cast<unsigned>(i % chunks)] = Vec16{};
    }
    if (Layout<C>::makes_rank_rows && tile.column == 0) {
        auto* const rank_rows = static_cast<typename C::Element*>(args.rank_rows);
        for (int i = thread; i < tile.rows * (C::RANK / 8); i += 128) {
            *reinterpret_cast<Vec16*>(rank_rows + static_cast<int64>(tile.first_row) * C::RANK + i * 8) = Vec16{};
        }
    }
}

template <class C>
__device__ __forceinline__ void store(const GroupedProductWgmmaArgs& args, unsigned char* shared, unsigned base,
                                      int first_item) {
    using L = Layout<C>;
    const auto* const scattered = static_cast<const typename C::Index*>(args.product.scattered_idxs);
    using Out = Rows<typename C::Element, C::OUT_ROWS, C::TOP_K>;
    const Out rows{static_cast<typename C::Element*>(args.product.out), args.product.out_stride};
    auto* const out = static_cast<Vec16*>(args.product.out);
    auto* const out_rows = reinterpret_cast<unsigned*>(shared + L::memory.out_rows);
    // A warp stores a row's 512 bytes, the four of them four rows at once.
    const int thread = static_cast<int>(threadIdx.x) & 127;
    const int warp = thread / 32;
    const int chunk = thread % 32;
    Ring<L::slots> ring;

    TileFinder<C> finder{args, reinterpret_cast<const int*>(shared + L::memory.prefix), base, first_item};
    if (threadIdx.x == finder_thread) finder.announce();
    Tiles<C> tiles{base};
    for (Tile tile; tiles.next(tile);) {
        // The one after it.
        if (threadIdx.x == finder_thread) finder.announce();
        ptx::named_barrier_sync(storer_barrier, 128);  // the last tile's rows are stored
        for (int row = thread; row < tile.rows; row += 128) {
            const int to = Out::index(tile.first_row + row, scattered);
            out_rows[row] = static_cast<unsigned>((rows.offset(to) + tile.column) / 8);
        }
        ptx::named_barrier_sync(storer_barrier, 128);
        if (tile.group == ProductGroups<C>::routed) {
            clear<C>(args, tile, out_rows);
            continue;
        }
        const bool inside = tile.column + chunk * 8 < C::OUT;
        for (int first = 0; first < tile.height; first += slot_rows) {
            const unsigned char* const slot =
                shared + L::memory.staging + static_cast<unsigned>(ring.stage) * L::slot_bytes;
            ptx::mbarrier_wait(L::staged(base, ring.stage), ring.parity);
            Vec16 value[slot_rows / 4];
            unsigned to[slot_rows / 4];
#pragma unroll
            for (int i = 0; i < slot_rows / 4; ++i) {
                const int row = warp + i * 4;
                value[i] = *reinterpret_cast<const Vec16*>(slot + swizzled<32>(row, chunk));
                to[i] = out_rows[first + row];
            }
#pragma unroll
            for (int i = 0; i < slot_rows / 4; ++i) {
                if (inside && first + warp + i * 4 < tile.rows) out[to[i] + static_cast<unsigned>(chunk)] = value[i];
            }
            __syncwarp();
            if (chunk == 0) ptx::mbarrier_arrive(L::stored(base, ring.stage));
            ring.next();
        }
        if (thread % 32 == 0) {
            ptx::mbarrier_arrive(L::left(base));
            if constexpr (L::leaving_warps > 4) {
                ptx::mbarrier_arrive_remote(L::left(base), ptx::cluster_block_rank() ^ 1U);
            }
        }
    }
}

}  // namespace smlora::grouped_product_wgmma
