// The tiles of the grouped product on wgmma, their order, and who finds them.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "grouped_product_wgmma/layout.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/shared.cuh"
#include "tile_list.cuh"

namespace smlora::grouped_product_wgmma {

struct Tile {
    int expert;     ///< E: entries left out; negative: there are no more tiles
    int first_row;  ///< sorted position
    int last_row;   ///< of the expert; rows past the tile's end repeat it
    int rows;       ///< 0 .. height
    int height;     ///< rows that are multiplied, see whole_height
    int column;
    int row_tile;  ///< among those of all experts
};

__device__ __forceinline__ void store_tile(unsigned address, const Tile& tile) {
    const auto word = [](int value) { return static_cast<unsigned>(value); };
    ptx::store_shared(address, {word(tile.expert), word(tile.first_row), word(tile.last_row), word(tile.rows)});
    ptx::store_shared(address + 16, {word(tile.height), word(tile.column), word(tile.row_tile), 0});
}

__device__ __forceinline__ Tile load_tile(unsigned address) {
    unsigned low[4];
    unsigned high[4];
    ptx::load_shared(low, address);
    ptx::load_shared(high, address + 16);
    const auto number = [](unsigned word) { return static_cast<int>(word); };
    return {number(low[0]),  number(low[1]),  number(low[2]), number(low[3]),
            number(high[0]), number(high[1]), number(high[2])};
}

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

/// Where an item is.
struct Place {
    int expert;
    int unit;  ///< row tile in units of CLUSTER, among those of all experts
    int column_tile;
};

/// Row tiles run fastest within (expert, column tile), so that those that share weights run together; where rank rows
/// are made on the way, the first column tiles of all experts go first.
template <class C>
__device__ __forceinline__ Place place_of(const int* prefix, int item) {
    int columns = C::COLUMN_TILES;
    int first_column = 0;
    if constexpr (Layout<C>::makes_rank_rows) {
        const int all_units = prefix[C::E + 1];
        first_column = item < all_units ? 0 : 1;
        columns = first_column == 0 ? 1 : C::COLUMN_TILES - 1;
        item -= first_column * all_units;
    }
    const int expert = group_of<C::E + 1>(prefix, item / columns);
    const int units = prefix[expert + 1] - prefix[expert];
    const int local = item - prefix[expert] * columns;
    return {expert, prefix[expert] + local % units, first_column + local / units};
}

/// The tile that block `rank` of the cluster has at `place`. An expert's rows are shared out evenly among its tiles.
template <class C>
__device__ __forceinline__ Tile tile_at(const Place& place, const int* prefix, const typename C::Index* offsets,
                                        int rank, int M) {
    Tile tile;
    tile.expert = place.expert;
    tile.column = place.column_tile * tile_columns;
    tile.row_tile = place.unit * C::CLUSTER + rank;
    const int first = first_row(offsets, tile.expert);
    const int rows = end_row<C::E>(offsets, tile.expert, M) - first;
    const int tiles = (prefix[tile.expert + 1] - prefix[tile.expert]) * C::CLUSTER;
    tile.height = whole_height<C>(ceil_div(rows, tiles));
    const int begin = (tile.row_tile - prefix[tile.expert] * C::CLUSTER) * tile.height;
    tile.first_row = first + begin;
    tile.last_row = first + rows - 1;
    tile.rows = rows - begin < tile.height ? rows - begin : tile.height;
    if (tile.rows < 0) tile.rows = 0;
    return tile;
}

/// Finds the block's tiles and announces them, one after the other. By one thread, and a tile ahead of those who work
/// on them: the search takes as long as a step of the reduction. Items are dealt out in turn or, where tiles wait for
/// others (Layout::dynamic), taken from a counter: then who holds a tile waits only for tiles that a running block
/// holds.
template <class C>
struct TileFinder {
    using L = Layout<C>;

    const GroupedProductWgmmaArgs& args;
    const int* prefix;  ///< row tiles before each expert
    unsigned base;      ///< of shared memory
    int item;           ///< the first; then the next
    unsigned announced = 0;

    static __device__ __forceinline__ int first_item(const GroupedProductWgmmaArgs& args) {
        if constexpr (L::dynamic) {
            return static_cast<int>(atomicAdd(args.progress, 1U));
        } else {
            return static_cast<int>(blockIdx.x) / C::CLUSTER;
        }
    }

    __device__ __forceinline__ void announce() {
        const auto* const offsets = static_cast<const typename C::Index*>(args.product.expert_offsets);
        Tile tile{};
        tile.expert = -1;
        if (item < prefix[C::E + 1] * C::COLUMN_TILES) {
            const int rank = static_cast<int>(blockIdx.x) % C::CLUSTER;
            tile = tile_at<C>(place_of<C>(prefix, item), prefix, offsets, rank, args.product.M);
            if constexpr (L::dynamic) {
                item = first_item(args);
            } else {
                item += static_cast<int>(gridDim.x) / C::CLUSTER;
            }
        }
        const unsigned slot = announced % L::tile_slots;
        ptx::mbarrier_wait(L::noted(base, slot), (announced / L::tile_slots + 1) % 2);
        store_tile(L::tile(base, slot), tile);
        ptx::mbarrier_arrive(L::announced(base, slot));
        ++announced;
    }
};

/// The block's tiles as one warp sees them.
template <class C>
struct Tiles {
    using L = Layout<C>;

    unsigned base;  ///< of shared memory
    unsigned noted = 0;

    /// Waits for the next tile; false: there is none.
    __device__ __forceinline__ bool next(Tile& tile) {
        const unsigned slot = noted % L::tile_slots;
        ptx::mbarrier_wait(L::announced(base, slot), noted / L::tile_slots % 2);
        tile = load_tile(L::tile(base, slot));
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(L::noted(base, slot));
        ++noted;
        return tile.expert >= 0;
    }
};

}  // namespace smlora::grouped_product_wgmma
