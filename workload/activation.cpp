#include "workload/activation.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace smlora::workload {
namespace {

/// A function and its derivative at one place.
struct Slope {
    double value;
    double derivative;
};

/// g / (1 + exp(-alpha g))
Slope swish(double g, double alpha) {
    const double sigmoid = 1 / (1 + std::exp(-alpha * g));
    return {g * sigmoid, sigmoid * (1 + alpha * g * (1 - sigmoid))};
}

/// g Phi(g)
Slope gelu(double g) {
    const double distribution = std::erfc(-g / std::numbers::sqrt2) / 2;
    const double density = std::exp(-g * g / 2) / std::sqrt(2 * std::numbers::pi);
    return {g * distribution, distribution + g * density};
}

/// g / 2 (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3)))
Slope gelu_tanh(double g) {
    const double root = std::sqrt(2 / std::numbers::pi);
    const double t = std::tanh(root * (g + 0.044715 * g * g * g));
    return {g / 2 * (1 + t), (1 + t) / 2 + g / 2 * (1 - t * t) * root * (1 + 3 * 0.044715 * g * g)};
}

Activated product(const Slope& gate, double u) { return {gate.value * u, gate.derivative * u, gate.value}; }

}  // namespace

Activated activate(Activation kind, double g, double u, const Clamp& clamp) {
    switch (kind) {
        case Activation::swiglu:
            return product(swish(g, 1), u);
        case Activation::geglu:
            return product(gelu(g), u);
        case Activation::geglu_tanh:
            return product(gelu_tanh(g), u);
        case Activation::reglu:
            return product({std::max(g, 0.0), g > 0 ? 1.0 : 0.0}, u);
        case Activation::swiglu_clamped:
            break;
    }
    Activated result =
        product(swish(std::min(g, clamp.limit), clamp.alpha), std::clamp(u, -clamp.limit, clamp.limit) + 1);
    if (g > clamp.limit) result.by_gate = 0;
    if (std::abs(u) > clamp.limit) result.by_value = 0;
    return result;
}

ActivatedRow activate_row(Activation kind, GateLayout layout, const Values& h, const Values& da, const Clamp& clamp) {
    ActivatedRow row{Values(da.size()), Values(h.size())};
    for (std::size_t c = 0; c < da.size(); ++c) {
        const std::size_t gate = layout == GateLayout::interleaved ? 2 * c : c;
        const std::size_t value = layout == GateLayout::interleaved ? 2 * c + 1 : da.size() + c;
        const Activated f = activate(kind, h[gate], h[value], clamp);
        row.a[c] = f.value;
        row.dh[gate] = da[c] * f.by_gate;
        row.dh[value] = da[c] * f.by_value;
    }
    return row;
}

}  // namespace smlora::workload
