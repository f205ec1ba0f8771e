// What the templates call the types of a problem.
#pragma once

#include <smlora/problem.hpp>

namespace smlora::families {

/// An element or index type. Throws Error{unsupported} for one that no template has.
[[nodiscard]] const char* type_name(DType dtype);

/// The type of gates. Kernels without gates take the type of their elements, so that the problem's type of gates does
/// not change them.
[[nodiscard]] const char* gate_type_name(const Problem& problem, bool gates);

/// The format of weights in the problem's own type (weight/plain.cuh).
inline constexpr const char* plain_weight = "smlora::weight::Plain";

}  // namespace smlora::families
