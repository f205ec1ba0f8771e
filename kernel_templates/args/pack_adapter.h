// Arguments of pack_adapter and pack_adapter_reference, and the tiles of pack_adapter, shared by the host and the
// kernels.
#pragma once

#include "args/integers.h"

namespace smlora {

/// packed [E, OUTER_PAD, INNER_PAD], contiguous and 16-byte aligned: packed[e, o, i] = source(e, o, i), converted, and
/// zero where o >= OUTER or i >= INNER. A: outer the rank, inner K. B: outer N, inner the rank. Strides count elements
/// and are 0 or more.
///
/// Launch: THREADS threads (256), no dynamic shared memory; any grid is right, a block takes one tile at a time:
///     grid = min(pack_adapter::tiling(..).count(), resident blocks)
/// The reference: 256 threads, any grid, a thread at a time takes one element.
struct PackAdapterArgs {
    const void* source;
    long long expert_stride;
    long long outer_stride;
    long long inner_stride;
    void* packed;
};

namespace pack_adapter {

/// The dimension of a matrix [E, outer, inner] with the smallest stride, as FASTEST has it.
enum class Fastest : unsigned char { inner = 0, outer = 1, expert = 2 };

/// Elements that a block moves at once, at most: 16 a thread, all of whose loads are under way together.
constexpr int tile_elements = 4096;

/// The packed tensor as planes x X x Y, Y contiguous and counted in units of some elements, and its tiles.
struct Tiling {
    int planes;
    int x, y;
    int tile_x, tile_y;

    [[nodiscard]] constexpr int x_tiles() const { return ceil_div(x, tile_x); }
    [[nodiscard]] constexpr int y_tiles() const { return ceil_div(y, tile_y); }
    [[nodiscard]] constexpr int count() const { return planes * x_tiles() * y_tiles(); }
};

/// Of [experts, outer, inner], with padding, in units of `unit` elements of a row. A plane is an expert's matrix, cut
/// into equal parts if inner is fastest (X = 1); else X is the fastest dimension, and with the expert fastest, Y is a
/// whole matrix. A tile has a warp's width of X, or an equal part of it, as far as there is one, and the rest is for Y.
constexpr Tiling tiling(Fastest fastest, int experts, int outer, int inner, int unit) {
    const int capacity = tile_elements / unit;
    const int row = inner / unit;
    const int matrix = outer * row;
    if (fastest == Fastest::inner) return {experts, 1, matrix, 1, ceil_div(matrix, ceil_div(matrix, capacity))};
    const bool across = fastest == Fastest::expert;
    const int x = across ? experts : outer;
    const int y = across ? matrix : row;
    const int width = ceil_div(x, ceil_div(x, 32));
    const int tile_y = least_of(y, capacity / width);
    return {across ? 1 : experts, x, y, least_of(x, capacity / tile_y), tile_y};
}

}  // namespace pack_adapter
}  // namespace smlora
