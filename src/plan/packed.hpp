// Whether a product multiplies the codes of quantised weights, or what they are unpacked to.
#pragma once

#include "gpu/device.hpp"
#include "plan/plan.hpp"
#include "plan/request.hpp"

#include "tuning/candidate.hpp"

#include <smlora/problem.hpp>

namespace smlora::plan {

/// For a request that may take codes: the products that decode them, with what permutes their rows, and one candidate
/// that stands for unpacking them, whatever multiplies what they are unpacked to.
[[nodiscard]] tuning::SearchSpace decoding_space(const Problem& problem, const Request& request,
                                                 const gpu::DeviceFacts& facts);

/// The request, but for products of codes where the choice for Role::decoding is to unpack.
[[nodiscard]] Request with_the_faster_product(const Problem& problem, Request request, const gpu::DeviceFacts& facts,
                                              const Choices& choices);

}  // namespace smlora::plan
