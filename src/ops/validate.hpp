// The checks of every operation's arguments, the same on both backends. Each throws Error{invalid_argument} that names
// the argument, its value and what was expected, for example "A: expected [E, R, K] = [128, 16, 2048], got [128, 8,
// 2048]".
#pragma once

#include <smlora/operations.hpp>

#include <cstdint>

namespace smlora::ops {

/// Each returns T, read off the tensors.
std::int64_t validate_route(const Problem& problem, const RouteArgs& args);
std::int64_t validate_group(const Problem& problem, const GroupArgs& args);
std::int64_t validate_combine(const Problem& problem, const CombineArgs& args);
std::int64_t validate_combine_backward(const Problem& problem, const CombineBackwardArgs& args);
std::int64_t validate_forward(const Problem& problem, const ForwardArgs& args);
std::int64_t validate_backward_input(const Problem& problem, const BackwardInputArgs& args);
std::int64_t validate_backward_lora(const Problem& problem, const BackwardLoraArgs& args);

}  // namespace smlora::ops
