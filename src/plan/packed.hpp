// Whether a product multiplies the codes of quantised weights, or what they are unpacked to.
#pragma once

#include "gpu/device.hpp"
#include "plan/plan.hpp"
#include "plan/request.hpp"

#include <smlora/problem.hpp>

namespace smlora::plan {

/// The request, but for products of codes if there are none here, or if unpacking is predicted to be faster; a choice
/// among products of codes decides.
[[nodiscard]] Request with_the_faster_product(const Problem& problem, Request request, const gpu::DeviceFacts& facts,
                                              const Choices& choices);

}  // namespace smlora::plan
