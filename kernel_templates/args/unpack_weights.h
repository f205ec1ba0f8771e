// Arguments of unpack_weights, shared by the host and the kernel.
#pragma once

#include "args/integers.h"

namespace smlora {

namespace unpack_weights {

/// Values of ENCODING: those of smlora::Encoding.
enum : int { nf4 = 1, fp4 = 2, int8 = 3, mxfp4 = 4, fp8 = 5, mxfp8 = 6, nvfp4 = 7, int4 = 8 };

/// Codes of half a byte each.
constexpr bool is_nibbles(int encoding) {
    return encoding == nf4 || encoding == fp4 || encoding == mxfp4 || encoding == nvfp4 || encoding == int4;
}

constexpr int code_bits(int encoding) { return is_nibbles(encoding) ? 4 : 8; }

/// Units of a lane in one segment. A unit is 16 bytes of `out`, or one element where these are not aligned.
inline constexpr int unroll = 4;

/// Segments of a matrix, which follow each other across its rows.
constexpr long long segments(long long rows, int row_units) {
    return (rows * row_units + 32 * unroll - 1) / (32 * unroll);
}

}  // namespace unpack_weights

/// out[e - first_expert] = the decoded matrix [ROWS, COLUMNS] of expert e, for first_expert <= e < first_expert +
/// experts. With expert_offsets, which are the routing's, matrices of experts without rows are left as they are.
/// What each encoding decodes to: smlora/weight.hpp.
///
/// A `slice` is what a product of these experts takes in the place of expert_offsets: where the rows of each begin, the
/// last one's end where those of entries that were left out begin, and their end. These belong to the last slice alone,
/// and so do experts that it lacks, without rows.
///
/// Launch: threads a multiple of 32 (256), no dynamic shared memory; any grid is right, a warp at a time takes a
/// segment of an expert's matrix:
///     grid = min(ceil(experts * segments(ROWS, UNITS) / (threads / 32)), 16 times the blocks that are resident at
///     once)
struct UnpackWeightsArgs {
    const void* codes;
    const void* scales;
    const float* table;         ///< nf4, fp4: [16]
    const float* outer_scales;  ///< DOUBLE: one for OUTER_BLOCK codes of `scales`. nvfp4: those of experts and parts
    const float* outer_table;   ///< DOUBLE: [256]
    const float* outer_offset;  ///< DOUBLE: [1]
    long long outer_expert_stride;  ///< nvfp4
    long long outer_part_stride;
    const void* expert_offsets;  ///< [E] of Index, or null: all experts
    void* out;                   ///< [experts, ROWS, COLUMNS]
    void* slice;                 ///< [slice_experts + 2] of Index, or null: not wanted
    int first_expert;
    int experts;
    int slice_experts;  ///< `experts`, or more of the last slice
    int all_experts;    ///< E
    int M;              ///< rows of the routing
};

}  // namespace smlora
