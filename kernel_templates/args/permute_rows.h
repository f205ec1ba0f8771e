// Arguments of permute_rows, shared by the host and the kernel.
#pragma once

#include "args/row_segments.h"

namespace smlora {

/// out row i = rows row i, its columns permuted within each 32 or 16, for codes of 4 or 8 bits, into the order in which
/// grouped_product_packed takes rows (weight/stage_codes.cuh): column 16 s + 8 h + 2 q + j of `out` is column
/// 8 q + 2 s + h + 4 j, or column 8 h + 2 q + j is column 4 q + h + 2 j. The row stride of `rows` counts elements; rows
/// of `out` follow each other.
///
/// Launch: threads a multiple of 32 (256), no dynamic shared memory; any grid is right, a warp at a time takes
/// (row, segment) pairs, SEGMENTS = permute_segments(WIDTH / 8).count:
///     grid = min(ceil(count * SEGMENTS / (threads / 32)), resident blocks)
struct PermuteRowsArgs {
    const void* rows;
    long long rows_stride;
    void* out;
    int count;
};

constexpr RowSegments permute_segments(int units) { return row_segments(units, 4); }

}  // namespace smlora
