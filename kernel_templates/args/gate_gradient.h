// Arguments of gate_gradient and gate_gradient_reference, shared by the host and the kernels.
#pragma once

namespace smlora {

/// dgates[f] = <left row, right row> (+ <bias row, bias_e>, HAS_BIAS), fp32; 0 for entries left out. FLAT = 0: for
/// every sorted position i, f = scattered_idxs[i]; FLAT = 1: f = i, no routing is read. SCALE_LEFT: then left row *=
/// gates[f] in place. Strides count elements.
///
/// Launch: threads a multiple of 32 (256), no dynamic shared memory; any grid is right, a warp takes one row at a time:
///     grid = min(ceil(M / (threads / 32)), 32 multiprocessors)
/// The reference: 256 threads, any grid, a thread at a time takes one row.
struct GateGradientArgs {
    void* left;  ///< WIDTH columns, in the order LEFT_ROWS; written only with SCALE_LEFT
    long long left_stride;
    const void* right;  ///< WIDTH columns, in the order RIGHT_ROWS
    long long right_stride;
    const void* bias_rows;  ///< BIAS_WIDTH columns, in the order BIAS_ROWS: the gradient of the output; HAS_BIAS
    long long bias_rows_stride;
    const void* bias;            ///< [E, BIAS_WIDTH] contiguous; HAS_BIAS
    const void* gates;           ///< [M] by flat entry; SCALE_LEFT
    const void* scattered_idxs;  ///< [M]; FLAT = 0
    const void* expert_offsets;  ///< [E]; FLAT = 0
    void* dgates;                ///< [M] by flat entry
    int M;
};

}  // namespace smlora
