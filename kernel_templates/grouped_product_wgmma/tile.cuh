// The tiles of the grouped product on wgmma and their order.
#pragma once

#include "grouped_product_wgmma/layout.cuh"
#include "tile_list.cuh"

namespace smlora::grouped_product_wgmma {

struct Tile {
    int expert;     ///< E: entries left out
    int first_row;  ///< sorted position
    int last_row;   ///< of the expert; rows past the tile's end repeat it
    int rows;       ///< 0 .. height
    int height;     ///< rows that are multiplied, a multiple of ROW_STEP
    int column;
};

/// Times that the output of a tile of `height` rows fills the staging.
template <class C>
__device__ __forceinline__ int fillings(int height) {
    return ceil_div(height, C::STAGING_ROWS);
}

/// Row tiles of a group in units of CLUSTER, whose blocks take one each.
template <class C>
__device__ __forceinline__ int row_tiles(const typename C::Index* offsets, int group, int M) {
    return ceil_div(end_row<C::E>(offsets, group, M) - first_row(offsets, group), C::TILE_ROWS * C::CLUSTER);
}

/// Tile `item` of block `rank` of the cluster. Row tiles run fastest within (expert, column tile), so that those that
/// share weights run together. An expert's rows are shared out evenly among its tiles.
template <class C>
__device__ __forceinline__ Tile tile_of(const int* prefix, const typename C::Index* offsets, int item, int rank,
                                        int M) {
    Tile tile;
    tile.expert = group_of<C::E + 1>(prefix, item / C::COLUMN_TILES);
    const int units = prefix[tile.expert + 1] - prefix[tile.expert];
    const int local = item - prefix[tile.expert] * C::COLUMN_TILES;
    tile.column = (C::FIRST_COLUMN_TILE + local / units) * tile_columns;
    const int first = first_row(offsets, tile.expert);
    const int rows = end_row<C::E>(offsets, tile.expert, M) - first;
    tile.height = ceil_div(ceil_div(rows, units * C::CLUSTER), C::ROW_STEP) * C::ROW_STEP;
    const int begin = (local % units * C::CLUSTER + rank) * tile.height;
    tile.first_row = first + begin;
    tile.last_row = first + rows - 1;
    tile.rows = rows - begin < tile.height ? rows - begin : tile.height;
    if (tile.rows < 0) tile.rows = 0;
    return tile;
}

/// Calls `work(tile)` for each tile of this block.
template <class C, class Work>
__device__ __forceinline__ void for_each_tile(const int* prefix, const typename C::Index* offsets, int M, Work work) {
    const int rank = static_cast<int>(blockIdx.x) % C::CLUSTER;
    const int items = prefix[C::E + 1] * C::COLUMN_TILES;
    const int clusters = static_cast<int>(gridDim.x) / C::CLUSTER;
    for (int item = static_cast<int>(blockIdx.x) / C::CLUSTER; item < items; item += clusters) {
        work(tile_of<C>(prefix, offsets, item, rank, M));
    }
}

}  // namespace smlora::grouped_product_wgmma
