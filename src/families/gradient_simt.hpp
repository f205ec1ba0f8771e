// The gradient of one adapter matrix without tensor cores, and the plain kernel for the same.
#pragma once

#include "families/step.hpp"

#include <smlora/problem.hpp>

#include <cstdint>

namespace smlora::families {

/// The wide operand of a gradient: x for dA, dy for dB.
struct WideOperand {
    std::int64_t width = 0;
    RowOrder rows = RowOrder::token;
};

[[nodiscard]] Step gradient_simt_step(const Problem& problem, const WideOperand& wide);

/// One thread an output: slow and obvious, to check the others against.
[[nodiscard]] Step gradient_reference_step(const Problem& problem, const WideOperand& wide);

}  // namespace smlora::families
