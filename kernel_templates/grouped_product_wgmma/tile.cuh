// The tiles of the grouped product on wgmma and their order.
#pragma once

#include "grouped_product_wgmma/layout.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/shared.cuh"
#include "tile_list.cuh"

namespace smlora::grouped_product_wgmma {

struct Tile {
    int expert;     ///< E: entries left out
    int first_row;  ///< sorted position
    int last_row;   ///< of the expert; rows past the tile's end repeat it
    int rows;       ///< 0 .. height
    int height;     ///< rows that are multiplied, see whole_height
    int column;
    int row_tile;  ///< among those of all experts
};

/// The height that a tile of `rows` rows is multiplied with: a multiple of ROW_STEP, of 16 up to 96 rows, where 8 are
/// not worth an instruction of their own to compile.
template <class C>
__host__ __device__ constexpr int whole_height(int rows) {
    const int step = rows > 96 ? C::ROW_STEP : 16;
    return ceil_div(rows, step) * step;
}

/// Row tiles of a group in units of CLUSTER, whose blocks take one each.
template <class C>
__device__ __forceinline__ int row_tiles(const typename C::Index* offsets, int group, int M) {
    return ceil_div(end_row<C::E>(offsets, group, M) - first_row(offsets, group), C::TILE_ROWS * C::CLUSTER);
}

/// Tile `item` of block `rank` of the cluster. Row tiles run fastest within (expert, column tile), so that those that
/// share weights run together; where rank rows are made on the way, the first column tiles of all experts go first. An
/// expert's rows are shared out evenly among its tiles.
template <class C>
__device__ __forceinline__ Tile tile_of(const int* prefix, const typename C::Index* offsets, int item, int rank,
                                        int M) {
    Tile tile;
    int columns = C::COLUMN_TILES;
    int first_column = 0;
    if constexpr (Layout<C>::makes_rank_rows) {
        const int all_units = prefix[C::E + 1];
        first_column = item < all_units ? 0 : 1;
        columns = first_column == 0 ? 1 : C::COLUMN_TILES - 1;
        item -= first_column * all_units;
    }
    tile.expert = group_of<C::E + 1>(prefix, item / columns);
    const int units = prefix[tile.expert + 1] - prefix[tile.expert];
    const int local = item - prefix[tile.expert] * columns;
    tile.column = (first_column + local / units) * tile_columns;
    tile.row_tile = (prefix[tile.expert] + local % units) * C::CLUSTER + rank;
    const int first = first_row(offsets, tile.expert);
    const int rows = end_row<C::E>(offsets, tile.expert, M) - first;
    tile.height = whole_height<C>(ceil_div(rows, units * C::CLUSTER));
    const int begin = (local % units * C::CLUSTER + rank) * tile.height;
    tile.first_row = first + begin;
    tile.last_row = first + rows - 1;
    tile.rows = rows - begin < tile.height ? rows - begin : tile.height;
    if (tile.rows < 0) tile.rows = 0;
    return tile;
}

/// What the roles of a block share to find their tiles.
struct TileList {
    const int* prefix;
    unsigned base;  ///< of shared memory
};

/// The items of a block, one after the other, as one warp sees them. Items are dealt out in turn or, where tiles wait
/// for others (Layout::dynamic), taken from a counter: then who holds a tile waits only for tiles that a running block
/// holds.
template <class C>
struct Items {
    using L = Layout<C>;

    const TileList& list;
    int item;
    Ring<L::item_slots> ring;

    __device__ __forceinline__ explicit Items(const TileList& all)
        : list(all),
          item(L::dynamic ? static_cast<int>(ptx::load_shared(L::first_item(all.base)))
                          : static_cast<int>(blockIdx.x) / C::CLUSTER) {}

    [[nodiscard]] __device__ __forceinline__ bool more() const {
        return item < list.prefix[C::E + 1] * C::COLUMN_TILES;
    }

    __device__ __forceinline__ void next() {
        if constexpr (L::dynamic) {
            ptx::mbarrier_wait(L::announced(list.base, ring.stage), ring.parity);
            item = static_cast<int>(ptx::load_shared(L::item(list.base, ring.stage)));
            __syncwarp();
            if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(L::noted(list.base, ring.stage));
            ring.next();
        } else {
            item += static_cast<int>(gridDim.x) / C::CLUSTER;
        }
    }

    /// Announces the item after this one to the block. By one thread, before it calls next().
    __device__ __forceinline__ void announce(int following) const {
        ptx::mbarrier_wait(L::noted(list.base, ring.stage), ring.parity ^ 1U);
        ptx::store_shared(L::item(list.base, ring.stage), static_cast<unsigned>(following));
        ptx::mbarrier_arrive(L::announced(list.base, ring.stage));
    }
};

/// Calls `work(tile)` for each tile of this block.
template <class C, class Work>
__device__ __forceinline__ void for_each_tile(const TileList& list, const typename C::Index* offsets, int M,
                                              Work work) {
    const int rank = static_cast<int>(blockIdx.x) % C::CLUSTER;
    for (Items<C> items{list}; items.more(); items.next()) {
        work(tile_of<C>(list.prefix, offsets, items.item, rank, M));
    }
}

}  // namespace smlora::grouped_product_wgmma
