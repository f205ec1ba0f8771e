// The operations. Notation: T tokens, M = T * top_k routed rows, e the expert and f the flat entry of sorted row i;
// the formulas are derived in docs/design.md, section "Mathematics".
//
// Common to all: stream-ordered on the CUDA backend, no host synchronisation, bitwise repeatable, capturable in a CUDA
// graph once its kernels are loaded (run the operation once, or prewarm). The first call on a problem is the exception
// with TuningPolicy::first_use: it measures, which waits for the stream, unless that captures a graph.
//
// Tensors are the caller's, each aligned to its element. An output, the workspace included, shares no memory with any
// other argument of the call; slices of one buffer that have no element in common are fine. Inputs may share memory. On
// the CUDA backend the alignment and the strides of all tensors, xa and yb included, decide which kernels can be used,
// and with them the last bits of a result.
//
// Errors: Error{invalid_argument} naming the argument, its value and what was expected, before anything is launched;
// Error{compile}, Error{cuda}; Error{not_ready} inside a capture when a kernel was never loaded.
#pragma once

#include <smlora/engine.hpp>
#include <smlora/problem.hpp>
#include <smlora/tensor.hpp>
#include <smlora/weight.hpp>

#include <cstddef>
#include <cstdint>

namespace smlora {

/// Scratch memory of an operation. Left empty, it comes from a stream-ordered pool (CUDA) or the heap (CPU).
/// At least as large as the operation's workspace query says, 256-byte aligned; free again when the stream has passed.
struct Workspace {
    void* data = nullptr;   ///< device memory, or host memory on the CPU backend
    std::size_t bytes = 0;  ///< at `data`
};

/// What `route` makes; all of problem.index_dtype and contiguous.
struct Routing {
    Tensor sorted_expert_idxs;     ///< [M]: the expert of each row, ascending; E for entries left out. Optional where
                                   ///< a routing is an input: only route writes it, no operation reads it.
    Tensor sorted_scattered_idxs;  ///< [M]: the flat entry t * top_k + j of each row; a permutation, stable; entries
                                   ///< left out (-1) come last, in order
    Tensor expert_offsets;         ///< [E]: inclusive cumulative row counts; its last value is the number of rows
};

// ---- route ---------------------------------------------------------------------------------------------------------

/// The arguments of route.
struct RouteArgs {
    Tensor top_idx;   ///< in [T, top_k], int32 or int64, contiguous; -1 (any value outside 0..E-1) leaves an entry out
    Routing routing;  ///< out, all three given
    Workspace workspace;
};

/// Stable counting sort of the routed entries by expert. Uses E, top_k and index_dtype of `problem`.
SMLORA_API void route(const Engine& engine, Stream stream, const Problem& problem, const RouteArgs& args);
[[nodiscard]] SMLORA_API std::size_t route_workspace(const Engine& engine, const Problem& problem, std::int64_t T);

// ---- group, combine ------------------------------------------------------------------------------------------------

/// The arguments of group.
struct GroupArgs {
    Tensor x;         ///< in, rows in the order of problem.x_rows (token or scattered), any row stride
    Tensor gates;     ///< in, optional [T, top_k]: a coefficient for each row, of problem.gate_dtype
    Routing routing;  ///< in
    Tensor out;       ///< out [M, width of x], grouped; rows of entries left out are zero
    Workspace workspace;
};

/// out_i = gates[f] * x_row(f): gathers rows into expert order. The width is x's, whatever the problem's K.
SMLORA_API void group(const Engine& engine, Stream stream, const Problem& problem, const GroupArgs& args);

/// The arguments of combine.
struct CombineArgs {
    Tensor y;      ///< in [M, width], scattered (row f)
    Tensor gates;  ///< in, optional [T, top_k], of problem.gate_dtype; not given: all 1
    Tensor out;    ///< out [T, width]
    Workspace workspace;
};

/// out_t = sum_j gates[t, j] * y[t * top_k + j], accumulated in fp32 (fp64 for fp64) in the order of j.
SMLORA_API void combine(const Engine& engine, Stream stream, const Problem& problem, const CombineArgs& args);

/// The arguments of combine_backward.
struct CombineBackwardArgs {
    Tensor dout;    ///< in [T, width]
    Tensor y;       ///< in [M, width], scattered; needed for dgates
    Tensor gates;   ///< in, optional [T, top_k]
    Tensor dy;      ///< out, optional [M, width], scattered: gates[t, j] * dout_t
    Tensor dgates;  ///< out, optional [T, top_k], of problem.gate_dtype: <dout_t, y[t * top_k + j]>
    Workspace workspace;
};

/// The gradients of combine.
SMLORA_API void combine_backward(const Engine& engine, Stream stream, const Problem& problem,
                                 const CombineBackwardArgs& args);

// ---- the projection ------------------------------------------------------------------------------------------------

/// The arguments of forward and scatter2scatter.
struct ForwardArgs {
    Tensor x;  ///< in, [T, K] or [M, K] as problem.x_rows says; columns contiguous, any row stride
    Weight W;  ///< in, [E, K, N] or [E, N, K] as problem.weight_layout says, stored as problem.weights says. A tensor
               ///< is a plain weight: matrices contiguous, any expert stride
    Tensor A;  ///< in, [E, R, K], any strides; with R > 0
    Tensor B;  ///< in, [E, N, R], any strides; with R > 0
    Tensor bias;           ///< in, [E, N] contiguous; with problem.bias
    Tensor gates;          ///< in, [T, top_k] contiguous; with problem.gates. Finite for entries left out, too
    Routing routing;       ///< in
    float scaling = 1.0F;  ///< of the adapter: alpha / R in PEFT
    Tensor y;              ///< out, [T, N] or [M, N] as problem.y_rows says; columns contiguous, any row stride
    Tensor xa;  ///< out, optional, [M, R] grouped, strides {padded_rank, 1}: scaling * x_i A_e^T, for backward_lora
    Workspace workspace;
};

/// y_i = x_i W_e + scaling (x_i A_e^T) B_e^T + b_e; rows of entries left out are zero. A = 0 or scaling = 0 gives the
/// base product bit for bit; on the CUDA backend if A and B are finite.
SMLORA_API void forward(const Engine& engine, Stream stream, const Problem& problem, const ForwardArgs& args);
[[nodiscard]] SMLORA_API std::size_t forward_workspace(const Engine& engine, const Problem& problem, std::int64_t T);

/// The base product alone, y_i = x_i W_e + b_e: forward with R = 0. A, B and xa are not looked at.
SMLORA_API void scatter2scatter(const Engine& engine, Stream stream, const Problem& problem, const ForwardArgs& args);

/// The arguments of backward_input.
struct BackwardInputArgs {
    Tensor dy;        ///< in, in the order of problem.y_rows: [T, N] (the gradient of the combined output) or [M, N]
    Weight W;         ///< in, as in forward
    Tensor A;         ///< in, with R > 0
    Tensor B;         ///< in, with R > 0
    Tensor gates;     ///< in, with problem.gates, unless before_gates
    Routing routing;  ///< in
    float scaling = 1.0F;       ///< of the adapter: alpha / R in PEFT
    bool before_gates = false;  ///< dx without the factor of the gates, as activation_backward takes it: with
                                ///< problem.gates, without a bias, and with x's rows in another order than token
    Tensor dx;      ///< out, in the order of problem.x_rows: [T, K], summed over a token's rows in fp32, or [M, K]
    Tensor yb;      ///< out, optional, [M, R] grouped, strides {padded_rank, 1}: scaling * dy_i B_e without the gate,
                    ///< for backward_lora
    Tensor dgates;  ///< out, optional, [T, top_k] contiguous, with problem.gates: <dy_t, y_f>, computed without y
    Tensor x;       ///< in, for dgates only
    Tensor bias;    ///< in, for dgates only, with problem.bias
    Workspace workspace;
};

/// dx_i = g_f (dy_i W_e^T + scaling (dy_i B_e) A_e), g the gates (1 if there are none); W is frozen.
/// dgates[f] = <dx_i / g_f, x_i> + <dy_t, b_e>, computed before the gate is applied, so that a gate of 0 is no
/// exception; 0 for entries left out. With before_gates dx_i is what is in brackets, and there are no dgates.
SMLORA_API void backward_input(const Engine& engine, Stream stream, const Problem& problem,
                               const BackwardInputArgs& args);
[[nodiscard]] SMLORA_API std::size_t backward_input_workspace(const Engine& engine, const Problem& problem,
                                                              std::int64_t T);

/// The arguments of backward_lora.
struct BackwardLoraArgs {
    Tensor x;              ///< in, as in forward
    Tensor dy;             ///< in, as in backward_input
    Tensor A;              ///< in; needed only for dB without xa
    Tensor B;              ///< in; needed only for dA without yb
    Tensor gates;          ///< in, with problem.gates
    Routing routing;       ///< in
    float scaling = 1.0F;  ///< of the adapter: alpha / R in PEFT
    Tensor xa;             ///< in, optional: what forward wrote; not given: computed again
    Tensor yb;             ///< in, optional: what backward_input wrote; not given: computed again
    Tensor dA;             ///< out, optional, [E, R, K], any strides that do not overlap, of adapter_dtype
    Tensor dB;             ///< out, optional, [E, N, R], likewise
    Workspace workspace;
};

/// dA_e = scaling (dY_e B_e)^T X_e and dB_e = scaling dY_e^T (X_e A_e^T), dY with its gates applied; exactly zero for
/// an expert without rows. At least one of dA and dB is given. Needs R > 0.
SMLORA_API void backward_lora(const Engine& engine, Stream stream, const Problem& problem,
                              const BackwardLoraArgs& args);
[[nodiscard]] SMLORA_API std::size_t backward_lora_workspace(const Engine& engine, const Problem& problem,
                                                             std::int64_t T);

}  // namespace smlora
