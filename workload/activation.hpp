// The gated activations by their formulas, in fp64.
#pragma once

#include "workload/array.hpp"

#include <smlora/activation.hpp>

namespace smlora::workload {

/// f(g, u) and its derivatives.
struct Activated {
    double value = 0;
    double by_gate = 0;
    double by_value = 0;
};

/// Parameters that only swiglu_clamped has; the defaults of ActivationArgs.
struct Clamp {
    double alpha = static_cast<double>(ActivationArgs{}.alpha);
    double limit = static_cast<double>(ActivationArgs{}.limit);
};

[[nodiscard]] Activated activate(Activation kind, double g, double u, const Clamp& clamp = {});

/// What becomes of a row h [2 * width] and its gradient da [width].
struct ActivatedRow {
    Values a;   ///< [width]
    Values dh;  ///< [2 * width]
};
[[nodiscard]] ActivatedRow activate_row(Activation kind, GateLayout layout, const Values& h, const Values& da,
                                        const Clamp& clamp = {});

}  // namespace smlora::workload
