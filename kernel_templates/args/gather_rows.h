// Arguments of gather_rows and gather_rows_reference, shared by the host and the kernels.
#pragma once

#include "args/row_segments.h"

namespace smlora {

/// out row i = gate(f) * row(i), i < M, WIDTH columns. FLAT = 0: i is a sorted position and f = scattered_idxs[i]; rows
/// at and after expert_offsets[E - 1] are zero. FLAT = 1: f = i, no routing is read. Strides count elements.
///
/// Launch: threads a multiple of 32 (256), no dynamic shared memory; any grid is right, a warp at a time takes
/// (row, segment) pairs. A unit is 16 bytes (VECTOR) or one element, UNITS = WIDTH / elements of a unit,
/// SEGMENTS = gather_segments(UNITS).count:
///     grid = min(ceil(M * SEGMENTS / (threads / 32)), 32 multiprocessors)
/// The reference: 256 threads, any grid, a thread at a time takes one element.
struct GatherRowsArgs {
    const void* rows;  ///< in the order ROWS (token, scattered or grouped)
    long long rows_stride;
    const void* gates;           ///< [M] by flat entry; HAS_GATES
    const void* scattered_idxs;  ///< [M]; FLAT = 0
    const void* expert_offsets;  ///< [E]; FLAT = 0
    void* out;                   ///< row i
    long long out_stride;
    int M;
};

constexpr RowSegments gather_segments(int units) { return row_segments(units, 4); }

}  // namespace smlora
