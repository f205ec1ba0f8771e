// Arguments of activation and activation_reference, shared by the host and the kernels.
#pragma once

namespace smlora {

/// a = a(g, u) of `rows` rows of WIDTH gates g and WIDTH values u; BACKWARD: their gradients from da, with a written as
/// well if WRITES_A. Strides count elements.
///
/// Launch: threads a multiple of 32 (256), no dynamic shared memory; any grid is right, a warp at a time takes
/// (row, segment) pairs. A unit is 16 bytes (VECTOR) or one element, UNITS = WIDTH / elements of a unit,
/// UNROLL = min(2, ceil(UNITS / 32)), SEGMENTS = ceil(UNITS / (32 UNROLL)):
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
    float alpha;  ///< of the clamped activation
    float limit;
    int rows;
};

}  // namespace smlora
