// Arguments of activation and activation_reference, shared by the host and the kernels.
#pragma once

#include "args/row_segments.h"

namespace smlora {

/// a = a(g, u) of `rows` rows of WIDTH gates g and WIDTH values u; BACKWARD: their gradients from da, with a written as
/// well if WRITES_A. HAS_GATES, BACKWARD: the gradients times gates[f], and dgates[f] = <da, a>, f =
/// scattered_idxs[row]. Strides count elements.
///
/// Launch: threads a multiple of 32 (256), no dynamic shared memory; any grid is right, a warp at a time takes
/// (row, segment) pairs, or with HAS_GATES rows. A unit is 16 bytes (VECTOR) or one element, UNITS = WIDTH / elements
/// of a unit, SEGMENTS = activation_segments(UNITS).count, or 1 with HAS_GATES:
///     grid = min(ceil(rows * SEGMENTS / (threads / 32)), 32 multiprocessors)
/// The reference: 256 threads, any grid, a thread at a time takes one element.
struct ActivationKernelArgs {
    const void* h;  ///< [rows, 2 WIDTH]
    long long h_stride;
    const void* da;  ///< [rows, WIDTH]; BACKWARD
    long long da_stride;
    void* a;  ///< [rows, WIDTH]; WRITES_A
    long long a_stride;
    void* dh;  ///< [rows, 2 WIDTH]; BACKWARD
    long long dh_stride;
    const void* gates;           ///< [rows] by flat entry; HAS_GATES
    const void* scattered_idxs;  ///< [rows]; HAS_GATES
    void* dgates;                ///< [rows] by flat entry; HAS_GATES
    float alpha;                 ///< of the clamped activation
    float limit;
    int rows;
};

constexpr RowSegments activation_segments(int units) { return row_segments(units, 2); }

}  // namespace smlora
