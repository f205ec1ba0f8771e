// The memory-bound kernels on rows: gathering, combining, gates, activations.
#pragma once

#include "families/step.hpp"

#include <smlora/activation.hpp>
#include <smlora/problem.hpp>

#include <cstdint>

namespace smlora::families {

/// Rows of one width, and whether each starts and ends at a multiple of 16 bytes.
struct RowShape {
    std::int64_t width = 0;
    bool vectors = false;

    friend bool operator==(const RowShape&, const RowShape&) = default;
};

/// out_i = gate row(i).
struct Gather {
    RowOrder rows = RowOrder::token;
    bool flat = false;  ///< in flat order, which needs no routing
    bool gates = false;
};
[[nodiscard]] Step gather_step(const Problem& problem, const RowShape& shape, const Gather& gather);

/// out_t = the sum of a token's rows, each times its gate if `gates`.
[[nodiscard]] Step combine_step(const Problem& problem, const RowShape& shape, bool gates);

/// dgates of combine: both operands lie in flat order.
[[nodiscard]] Step flat_gate_gradient_step(const Problem& problem, const RowShape& shape);

/// dgates of backward_input: from the product before its gate.
struct GateGradient {
    RowOrder left_rows = RowOrder::scattered;  ///< of that product
    bool scales_left = false;                  ///< by the gate, afterwards
    bool bias_vectors = false;  ///< the bias, and the rows that it is multiplied with, as RowShape has it
};
[[nodiscard]] Step gate_gradient_step(const Problem& problem, bool vectors, const GateGradient& gradient);

/// A gated activation.
struct ActivationWork {
    enum class Direction : std::uint8_t { forward, backward };

    Direction direction = Direction::forward;
    bool writes_a = true;  ///< the activation itself; always forward
    bool gates = false;    ///< backward: the gates are applied to the gradient, and theirs is made
    Activation activation = Activation::swiglu;
    GateLayout layout = GateLayout::halves;

    friend bool operator==(const ActivationWork&, const ActivationWork&) = default;
};
[[nodiscard]] Step activation_step(const Problem& problem, const RowShape& shape, const ActivationWork& work);

}  // namespace smlora::families
