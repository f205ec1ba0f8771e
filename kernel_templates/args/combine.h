// Arguments of combine and combine_reference, shared by the host and the kernels.
#pragma once

#include "args/row_segments.h"

namespace smlora {

/// out_t = sum over j of gates[t, j] * y[t * TOP_K + j], t < T, WIDTH columns, fp32, in the order of j; without
/// HAS_GATES the plain sum of a token's rows. Strides count elements.
///
/// Launch: threads a multiple of 32 (256), no dynamic shared memory; any grid is right, a warp at a time takes
/// (token, segment) pairs. A unit is 16 bytes (VECTOR) or one element, UNITS = WIDTH / elements of a unit,
/// SEGMENTS = combine_segments(UNITS, TOP_K).count:
///     grid = min(ceil(T * SEGMENTS / (threads / 32)), 32 multiprocessors)
/// The reference: 256 threads, any grid, a thread at a time takes one element.
struct CombineKernelArgs {
    const void* y;  ///< [T * TOP_K, WIDTH], scattered
    long long y_stride;
    const void* gates;  ///< [T, TOP_K]; HAS_GATES
    void* out;          ///< [T, WIDTH]
    long long out_stride;
    int T;
};

/// A thread has about four loads under way, over its units and the choices.
constexpr RowSegments combine_segments(int units, int top_k) { return row_segments(units, greatest_of(1, 4 / top_k)); }

}  // namespace smlora
