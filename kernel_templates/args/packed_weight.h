// Weights that products decode while they multiply them: how their scales lie in memory and what a stage has, shared by
// the host and the kernels.
#pragma once

#include "args/grouped_product.h"
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

/// What a block of scales has: `in_row` scales of `bytes` each for the 64 columns of a row, the same ones for
/// `rows_of_scale` rows. Bytes lie [64 rows, in_row]: a thread takes those of a row at once. Larger ones lie [in_row,
/// rows]: it takes one of two rows. Behind them, where it `has_split`, the block has the split of a factor
/// (args/split_factor.h), and zeros up to a multiple of 16 bytes.
struct ScaleOrder {
    int in_row;
    int bytes;
    int rows_of_scale = 1;
    bool has_split = false;

    [[nodiscard]] constexpr int lines() const { return scale_block / rows_of_scale; }
    [[nodiscard]] constexpr int scales() const { return lines() * in_row; }
    [[nodiscard]] constexpr int split_at() const { return scales() * bytes; }
    [[nodiscard]] constexpr int block_bytes() const { return has_split ? round_up(split_at() + 4, 16) : split_at(); }
    /// Elements of the type of a scale that a block has room for.
    [[nodiscard]] constexpr int count() const { return block_bytes() / bytes; }
    [[nodiscard]] constexpr int columns_of_scale() const { return scale_block / in_row; }
    [[nodiscard]] constexpr int in_block(int row, int scale) const {
        return bytes == 1 ? row * in_row + scale : scale * lines() + row / rows_of_scale;
    }
};

/// Of an encoding of unpack_weights and its block of values along a row; a block of more than 64 values has its scale
/// for each 64 of them. in_row 0: such scales have no order.
constexpr ScaleOrder scale_order(int encoding, long long block) {
    const bool whole = block % scale_block == 0;
    switch (encoding) {
        case unpack_weights::mxfp4:
        case unpack_weights::mxfp8:
            return {.in_row = 2, .bytes = 1};
        case unpack_weights::nvfp4:  // bf16, which has every e4m3
            return {.in_row = 4, .bytes = 2, .has_split = true};
        case unpack_weights::int4:
            return {.in_row = block == 32 ? 2 : whole ? 1 : 0, .bytes = 2};
        case unpack_weights::nf4:
        case unpack_weights::fp4:
            return {.in_row = whole ? 1 : 0, .bytes = 4};
        case unpack_weights::fp8:
            return {.in_row = whole ? 1 : 0, .bytes = 4, .rows_of_scale = scale_block, .has_split = true};
        default:
            return {.in_row = 0, .bytes = 1};
    }
}

/// Where the scale of a row and column is.
constexpr long long arranged_index(ScaleOrder order, int expert, int row, int column, int rows, int columns) {
    const long long line = static_cast<long long>(expert) * scale_blocks(rows) + row / scale_block;
    return (line * scale_blocks(columns) + column / scale_block) * order.count() +
           order.in_block(row % scale_block, column % scale_block / order.columns_of_scale());
}

/// Bytes of the codes, of `bits` each, and of the scales of one stage, and the room that they take: what follows is
/// aligned to 1024.
constexpr int stage_code_bytes(int bits, int columns, int depth) { return columns * depth * bits / 8; }
constexpr int stage_copied_bytes(int bits, ScaleOrder order, int columns, int depth) {
    return stage_code_bytes(bits, columns, depth) + columns / scale_block * (depth / scale_block) * order.block_bytes();
}
constexpr int packed_stage_bytes(int bits, ScaleOrder order, int columns, int depth) {
    return round_up(stage_copied_bytes(bits, order, columns, depth), 1024);
}

/// The same of grouped_product_mma_packed.
constexpr int mma_packed_stage_bytes(int bits, ScaleOrder order, int columns, int depth) {
    return round_up(stage_copied_bytes(bits, order, columns, depth), 128);
}

}  // namespace weight

/// Strides count bytes.
struct PackedScales {
    const void* data;
    long long expert_stride;
    long long row_stride;  ///< from one row of blocks to the next
};

/// What grouped_product_packed takes. The map of the weight counts units of two bytes.
struct GroupedProductPackedArgs {
    GroupedProductWgmmaArgs wgmma;  ///< first: see weight/wgmma_packed.cuh
    PackedScales scales;
    const float* table;  ///< nf4, fp4: [16]
};

/// What grouped_product_mma_packed takes. product.weight are the codes; their strides are not read.
struct GroupedProductMmaPackedArgs {
    GroupedProductArgs product;
    PackedScales scales;
    const float* table;  ///< nf4, fp4: [16]
};

}  // namespace smlora
