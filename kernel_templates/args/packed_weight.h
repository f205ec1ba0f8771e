// Weights that products decode while they multiply them: how their scales lie in memory and what a stage has, shared by
// the host and the kernels.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "args/integers.h"

namespace smlora {

namespace weight {

/// Scales in the order in which a product takes them, made once by arrange_scales: for each expert, 64 rows and 64
/// columns of its matrix a block, [E, rows / 64, columns / 64]; in a block [64 rows, 2] bytes, a scale for 32 columns
/// each. Rows and columns are padded, so that a tile never ends within its scales.
constexpr int scale_block = 64;
constexpr int scale_block_bytes = scale_block * 2;
constexpr int scale_padding = 256;

/// Blocks of `length` rows or columns.
constexpr int scale_blocks(int length) { return round_up(length, scale_padding) / scale_block; }

/// Where the scale of 32 columns `block` of row `row` is.
constexpr long long arranged_index(int expert, int row, int block, int rows, int columns) {
    const long long line = static_cast<long long>(expert) * scale_blocks(rows) + row / scale_block;
    return (line * scale_blocks(columns) + block / 2) * scale_block_bytes + row % scale_block * 2 + block % 2;
}

/// Bytes of the codes and the scales of one stage in the format Mxfp4, and the room that they take: what follows is
/// aligned to 1024.
constexpr int mxfp4_code_bytes(int columns, int depth) { return columns * depth / 2; }
constexpr int mxfp4_copied_bytes(int columns, int depth) {
    return mxfp4_code_bytes(columns, depth) + columns * depth / 32;
}
constexpr int mxfp4_stage_bytes(int columns, int depth) { return round_up(mxfp4_copied_bytes(columns, depth), 1024); }

}  // namespace weight

/// Strides count bytes.
struct PackedScales {
    const void* data;
    long long expert_stride;
    long long row_stride;  ///< from one row of blocks to the next
};

/// What grouped_product_packed takes. The map of the weight counts units of four codes.
struct GroupedProductPackedArgs {
    GroupedProductWgmmaArgs wgmma;  ///< first: see weight/wgmma_mxfp4.cuh
    PackedScales scales;
};

}  // namespace smlora
