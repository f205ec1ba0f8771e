// The tiles of the grouped product on wgmma, their order, and how a block finds its own.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "grouped_product_wgmma/layout.cuh"
#include "product_groups.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/shared.cuh"
#include "tile_list.cuh"

namespace smlora::grouped_product_wgmma {

struct Tile {
    int group;      ///< of rows, see Groups; negative: there are no more tiles
    int first_row;  ///< sorted position
    int last_row;   ///< of the group; rows past the tile's end repeat it
    int rows;       ///< 0 .. height
    int height;     ///< rows that are multiplied, see whole_height
    int column;
    int row_tile;  ///< among those of all groups
};

__device__ __forceinline__ void store_tile(unsigned address, const Tile& tile) {
    const auto word = [](int value) { return static_cast<unsigned>(value); };
    ptx::store_shared(address, {word(tile.group), word(tile.first_row), word(tile.last_row), word(tile.rows)});
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

/// Row tiles of a group in units of CLUSTER, whose blocks take one each.
template <class C>
__device__ __forceinline__ int row_tiles(const ProductGroups<C>& groups, int group) {
    return ceil_div(groups.rows(group), C::TILE_ROWS * C::CLUSTER);
}

/// Where an item is.
struct Place {
    int group;
    int unit;  ///< row tile in units of CLUSTER, among those of all groups
    int column_tile;
};

/// Where rank rows are made on the way, a unit's first column tile comes well before its others, which wait for it:
/// groups go in bands of `experts_ahead`, the first column tiles of a band before the other tiles of the band before
/// it. So rows are still in L2 when they are read again.
template <class C>
struct Bands {
    static constexpr int groups = ProductGroups<C>::count;
    static constexpr int others = C::COLUMN_TILES - 1;  ///< tiles of a unit beside its first

    const int* prefix;
    int experts_ahead;

    /// Units before band `band`.
    __device__ __forceinline__ int units_before(int band) const {
        const int group = band * experts_ahead;
        return prefix[group < groups ? group : groups];
    }

    /// First item that comes after the first column tiles of bands 0 .. `band` and the other tiles of the bands before
    /// it.
    __device__ __forceinline__ int begin(int band) const {
        return units_before(band + 1) + units_before(band) * others;
    }

    /// The last band whose begin() is not beyond `item`; -1: the item is a first column tile of band 0.
    __device__ __forceinline__ int band_of(int item) const {
        int low = -1;
        int high = ceil_div(groups, experts_ahead);
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            if (begin(middle) <= item) {
                low = middle;
            } else {
                high = middle;
            }
        }
        return low;
    }
};

/// Row tiles run fastest within (group, column tile), so that those that share weights run together.
template <class C>
__device__ __forceinline__ Place place_of(const int* prefix, int item, int experts_ahead) {
    int columns = C::COLUMN_TILES;  // that go together
    int first_column = 0;
    int unit_base = 0;  // units before those that `item` counts from
    if constexpr (Layout<C>::makes_rank_rows) {
        const Bands<C> bands{prefix, experts_ahead};
        const int band = bands.band_of(item);
        const int ahead = bands.units_before(band + 1);
        if (band >= 0) item -= bands.begin(band);
        const int first_tiles = bands.units_before(band + 2) - ahead;
        if (item < first_tiles) {
            columns = 1;
            unit_base = ahead;
        } else {
            item -= first_tiles;
            columns = Bands<C>::others;
            first_column = 1;
            unit_base = bands.units_before(band);
        }
    }
    const int group = group_of<ProductGroups<C>::count>(prefix, unit_base + item / columns);
    const int units = prefix[group + 1] - prefix[group];
    const int local = item - (prefix[group] - unit_base) * columns;
    return {group, prefix[group] + local % units, first_column + local / units};
}

/// The tile that block `rank` of the cluster has at `place`. A group's rows are shared out evenly among its tiles.
template <class C>
__device__ __forceinline__ Tile tile_at(const Place& place, const int* prefix, const ProductGroups<C>& groups,
                                        int rank) {
    Tile tile;
    tile.group = place.group;
    tile.column = place.column_tile * tile_columns;
    tile.row_tile = place.unit * C::CLUSTER + rank;
    const int first = groups.first_row(tile.group);
    const int rows = groups.end_row(tile.group) - first;
    const int tiles = (prefix[tile.group + 1] - prefix[tile.group]) * C::CLUSTER;
    tile.height = whole_height(ceil_div(rows, tiles), C::ROW_STEP);
    const int begin = (tile.row_tile - prefix[tile.group] * C::CLUSTER) * tile.height;
    tile.first_row = first + begin;
    tile.last_row = first + rows - 1;
    tile.rows = rows - begin < tile.height ? rows - begin : tile.height;
    if (tile.rows < 0) tile.rows = 0;
    return tile;
}

/// Finds the block's tiles and announces them, one after the other. By one thread, and a tile ahead of the threads
/// that work on it: the search takes as long as a step of the reduction. Items are dealt out in turn or, where tiles
/// wait for others (Layout::dynamic), taken from a counter: then the block of a tile waits only for tiles that running
/// blocks hold. The blocks of a cluster, which run together, have the same items: the first of them takes one and tells
/// the other.
template <class C>
struct TileFinder {
    using L = Layout<C>;

    const GroupedProductWgmmaArgs& args;
    const int* prefix;  ///< row tiles before each group
    unsigned base;      ///< of shared memory
    int item;           ///< the next, as taken_item() has it
    unsigned announced = 0;

    static __device__ __forceinline__ int rank() { return static_cast<int>(blockIdx.x) % C::CLUSTER; }

    /// The block's first item, then any later one where items are taken; unless another block has to tell it.
    static __device__ __forceinline__ int taken_item(const GroupedProductWgmmaArgs& args) {
        if constexpr (!L::dynamic) return static_cast<int>(blockIdx.x) / C::CLUSTER;
        return rank() == 0 ? static_cast<int>(atomicAdd(args.progress, 1U)) : 0;
    }

    /// Makes `item` that of the cluster's first block.
    __device__ __forceinline__ void share_item() {
        const unsigned parity = announced % 2;
        if (rank() == 0) {
            ptx::mbarrier_wait(L::item_read(base), parity ^ 1U);
            ptx::store_shared_remote(L::item(base), static_cast<unsigned>(item), L::item_told(base), 1);
        } else {
            ptx::mbarrier_arrive_expect(L::item_told(base), sizeof(unsigned));
            ptx::mbarrier_wait(L::item_told(base), parity);
            item = static_cast<int>(ptx::load_shared(L::item(base)));
            ptx::mbarrier_arrive_remote(L::item_read(base), 0);
        }
    }

    __device__ __forceinline__ void announce() {
        const ProductGroups<C> groups{static_cast<const typename C::Index*>(args.product.expert_offsets),
                                      args.product.M};
        if constexpr (L::dynamic && C::CLUSTER > 1) share_item();
        Tile tile{};
        tile.group = -1;
        if (item < prefix[groups.count] * C::COLUMN_TILES) {
            tile = tile_at<C>(place_of<C>(prefix, item, args.experts_ahead), prefix, groups, rank());
            if constexpr (L::dynamic) {
                item = taken_item(args);
            } else {
                item += static_cast<int>(gridDim.x) / C::CLUSTER;
            }
        }
        const unsigned slot = announced % tile_slots;
        ptx::mbarrier_wait(L::noted(base, slot), (announced / tile_slots + 1) % 2);
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
        const unsigned slot = noted % tile_slots;
        ptx::mbarrier_wait(L::announced(base, slot), noted / tile_slots % 2);
        tile = load_tile(L::tile(base, slot));
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(L::noted(base, slot));
        ++noted;
        return tile.group >= 0;
    }
};

}  // namespace smlora::grouped_product_wgmma
