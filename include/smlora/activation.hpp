// Gated activations: what stands between the two projections of an expert. Rows of any order go in and come out row by
// row, so that no routing is needed.
#pragma once

#include <smlora/engine.hpp>
#include <smlora/problem.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <string_view>

namespace smlora {

/// a(g, u) of a gate g and the value u beside it.
enum class Activation : std::int32_t {
    swiglu = 0,          ///< silu(g) u, silu(g) = g / (1 + exp(-g))
    geglu = 1,           ///< gelu(g) u, gelu(g) = g (1 + erf(g / sqrt(2))) / 2
    geglu_tanh = 2,      ///< gelu(g) u with the usual approximation of gelu by tanh
    reglu = 3,           ///< max(g, 0) u
    swiglu_clamped = 4,  ///< g' / (1 + exp(-alpha g')) (u' + 1), g' = min(g, limit), u' = u clamped to +-limit: gpt-oss
};

/// How the gates and the values beside them lie in a row of 2 * width elements.
enum class GateLayout : std::int32_t {
    halves = 0,       ///< the gates, then the values
    interleaved = 1,  ///< in turns, a gate first
};

/// "swiglu", "geglu", "geglu_tanh", "reglu", "swiglu_clamped".
[[nodiscard]] SMLORA_API std::string_view name(Activation activation);
/// "halves", "interleaved".
[[nodiscard]] SMLORA_API std::string_view name(GateLayout layout);

/// The arguments of activation.
struct ActivationArgs {
    Tensor h;                                    ///< in [rows, 2 * width], columns contiguous, any row stride
    Tensor a;                                    ///< out [rows, width], likewise
    Activation activation = Activation::swiglu;  ///< which function
    GateLayout layout = GateLayout::halves;      ///< of h
    float alpha = 1.702F;                        ///< of swiglu_clamped
    float limit = 7.0F;                          ///< of swiglu_clamped, positive
};

/// a = a(g, u) element by element, computed in fp32 (fp64 for fp64), in one read and one write. Of the problem only
/// dtype counts, which is that of all tensors. Stream-ordered, capturable and repeatable as the operations of
/// operations.hpp. Throws Error{invalid_argument} naming the argument.
SMLORA_API void activation(const Engine& engine, Stream stream, const Problem& problem, const ActivationArgs& args);

/// The arguments of activation_backward.
struct ActivationBackwardArgs {
    Tensor h;   ///< in [rows, 2 * width], as in activation
    Tensor da;  ///< in [rows, width]
    Tensor dh;  ///< out [rows, 2 * width], in the layout of h
    Tensor a;   ///< out, optional, [rows, width]: the activation once more, if it was not kept
    Activation activation = Activation::swiglu;  ///< as in activation
    GateLayout layout = GateLayout::halves;      ///< of h and dh
    float alpha = 1.702F;                        ///< of swiglu_clamped
    float limit = 7.0F;                          ///< of swiglu_clamped, positive
    Tensor gates = {};                           ///< in, optional, [T, top_k] contiguous: of the experts' outputs
    Tensor sorted_scattered_idxs = {};  ///< in, with gates, [rows] contiguous: the routing's; the rows are grouped then
    Tensor dgates = {};                 ///< out, with gates, [T, top_k] contiguous
};

/// dg = da * da/dg and du = da * da/du, in one read and one write. Where a clamp cuts, the gradient is 0; at the limit
/// itself it passes, and max(g, 0) has the gradient 0 at 0. With gates, da comes from backward_input with before_gates:
/// dh_i is the above times gates[f], and dgates[f] = <da_i, a_i> in fp32, f = sorted_scattered_idxs[i]. Rows of entries
/// left out must be zeros, as the projections leave them; their dgates are 0. Of the problem top_k, gate_dtype and
/// index_dtype then count, too.
SMLORA_API void activation_backward(const Engine& engine, Stream stream, const Problem& problem,
                                    const ActivationBackwardArgs& args);

}  // namespace smlora
