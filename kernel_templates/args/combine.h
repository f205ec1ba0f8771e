// Arguments of combine and combine_reference, shared by the host and the kernels.
#pragma once

namespace smlora {

/// out_t = sum over j of gates[t, j] * y[t * TOP_K + j], t < T, WIDTH columns, fp32, in the order of j; without
/// HAS_GATES the plain sum of a token's rows. Strides count elements.
///
/// Launch: threads a multiple of 32 (256), no dynamic shared memory; any grid is right, a warp at a time takes
/// (token, segment) pairs. A unit is 16 bytes (VECTOR) or one element, UNITS = WIDTH / elements of a unit,
/// UNROLL = min(max(1, 4 / TOP_K), ceil(UNITS / 32)), SEGMENTS = ceil(UNITS / (32 UNROLL)):
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

}  // namespace smlora
