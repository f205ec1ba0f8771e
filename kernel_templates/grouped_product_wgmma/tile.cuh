// The tiles of the grouped product on wgmma and their order.
#pragma once

#include "grouped_product_wgmma/layout.cuh"
#include "tile_list.cuh"

namespace smlora::grouped_product_wgmma {

struct Tile {
    int expert;     ///< E: entries left out
    int first_row;  ///< sorted position
    int rows;       ///< 1 .. height
    int height;     ///< rows that are multiplied, a multiple of ROW_STEP
    int column;
};

/// Row tiles of a group: an expert's rows are shared out evenly, so that none of its tiles is much lower than others.
template <class C>
__device__ __forceinline__ int row_tiles(const typename C::Index* offsets, int group, int M) {
    return ceil_div(end_row<C::E>(offsets, group, M) - first_row(offsets, group), C::TILE_ROWS);
}

/// Tile `item`: row tiles run fastest within (expert, column tile), so that those that share weights run together.
template <class C>
__device__ __forceinline__ Tile tile_of(const int* prefix, const typename C::Index* offsets, int item, int M) {
    Tile tile;
    tile.expert = group_of<C::E + 1>(prefix, item / C::COLUMN_TILES);
    const int tiles = prefix[tile.expert + 1] - prefix[tile.expert];
    const int local = item - prefix[tile.expert] * C::COLUMN_TILES;
    tile.column = (C::FIRST_COLUMN_TILE + local / tiles) * tile_columns;
    const int first = first_row(offsets, tile.expert);
    const int rows = end_row<C::E>(offsets, tile.expert, M) - first;
    tile.height = ceil_div(ceil_div(rows, tiles), C::ROW_STEP) * C::ROW_STEP;
    const int begin = local % tiles * tile.height;
    tile.first_row = first + begin;
    tile.rows = rows - begin < tile.height ? rows - begin : tile.height;
    return tile;
}

/// Calls `work(tile)` for each tile of this block.
template <class C, class Work>
__device__ __forceinline__ void for_each_tile(const int* prefix, const typename C::Index* offsets, int M, Work work) {
    const int tiles = prefix[C::E + 1] * C::COLUMN_TILES;
    for (int item = static_cast<int>(blockIdx.x); item < tiles; item += static_cast<int>(gridDim.x)) {
        work(tile_of<C>(prefix, offsets, item, M));
    }
}

}  // namespace smlora::grouped_product_wgmma
