// Weights that products decode while they multiply them: how their scales lie in memory and what a stage has, shared by
// the host and the kernels.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "args/integers.h"
#include "args/unpack_weights.h"

namespace smlora {

namespace weight {

/// Scales in the order in which a product takes them, made once by arrange_scales: for each expert, 64 rows and 64
/// columns of its matrix a block, [E, rows / 64, columns / 64]. Rows and columns are padded, so that a tile never ends
/// within its scales.
constexpr int scale_block = 64;
constexpr int scale_padding = 256;

/// Blocks of `length` rows or columns.
constexpr int scale_blocks(int length) { return round_up(length, scale_padding) / scale_block; }

/// What a block of scales has: `in_row` scales of `bytes` each for the 64 columns of a row. Bytes lie [64 rows,
/// in_row]: a thread takes those of a row at once. Larger ones lie [in_row, 64 rows]: it takes one of two rows.
struct ScaleOrder {
    int in_row;
    int bytes;

    [[nodiscard]] constexpr int count() const { return scale_block * in_row; }
    [[nodiscard]] constexpr int block_bytes() const { return count() * bytes; }
    [[nodiscard]] constexpr int columns_of_scale() const { return scale_block / in_row; }
    [[nodiscard]] constexpr int in_block(int row, int scale) const {
        return bytes == 1 ? row * in_row + scale : scale * scale_block + row;
    }
};

/// Of an encoding of unpack_weights and its block of values along a row; a block of more than 64 values has its scale
/// for each 64 of them. in_row 0: such scales have no order.
constexpr ScaleOrder scale_order(int encoding, long long block) {
    if (encoding == unpack_weights::mxfp4) return {2, 1};
    if (encoding != unpack_weights::int4) return {0, 0};
    return {block == 32 ? 2 : block % scale_block == 0 ? 1 : 0, 2};
}

/// Where the scale of a row and column is.
constexpr long long arranged_index(ScaleOrder order, int expert, int row, int column, int rows, int columns) {
    const long long line = static_cast<long long>(expert) * scale_blocks(rows) + row / scale_block;
    return (line * scale_blocks(columns) + column / scale_block) * order.count() +
           order.in_block(row % scale_block, column % scale_block / order.columns_of_scale());
}

/// Bytes of the codes, of half a byte each, and of the scales of one stage, and the room that they take: what follows
/// is aligned to 1024.
constexpr int nibble_code_bytes(int columns, int depth) { return columns * depth / 2; }
constexpr int nibble_copied_bytes(ScaleOrder order, int columns, int depth) {
    return nibble_code_bytes(columns, depth) + columns / scale_block * (depth / scale_block) * order.block_bytes();
}
constexpr int nibble_stage_bytes(ScaleOrder order, int columns, int depth) {
    return round_up(nibble_copied_bytes(order, columns, depth), 1024);
}

}  // namespace weight

/// Strides count bytes.
struct PackedScales {
    const void* data;
    long long expert_stride;
    long long row_stride;  ///< from one row of blocks to the next
};

/// What grouped_product_packed takes. The map of the weight counts units of four codes.
struct GroupedProductPackedArgs {
    GroupedProductWgmmaArgs wgmma;  ///< first: see weight/wgmma_nibbles.cuh
    PackedScales scales;
};

}  // namespace smlora
