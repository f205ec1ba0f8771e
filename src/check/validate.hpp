// The checks of every operation's arguments, the same on both backends. Each throws Error{invalid_argument} that names
// the argument, its value and what was expected, for example "A: expected [E, R, K] = [128, 16, 2048], got [128, 8,
// 2048]", or Error{unsupported} for a valid problem that the backend does not serve. They run on every call and
// allocate nothing unless they fail.
#pragma once

#include <smlora/activation.hpp>
#include <smlora/engine.hpp>
#include <smlora/operations.hpp>
#include <smlora/weight.hpp>

#include <cstddef>
#include <cstdint>

namespace smlora::check {

/// Each checks the problem first and returns T, read off the tensors.
std::int64_t validate_route(const Problem& problem, const RouteArgs& args, Backend backend);
std::int64_t validate_group(const Problem& problem, const GroupArgs& args, Backend backend);
std::int64_t validate_combine(const Problem& problem, const CombineArgs& args, Backend backend);
std::int64_t validate_combine_backward(const Problem& problem, const CombineBackwardArgs& args, Backend backend);
std::int64_t validate_forward(const Problem& problem, const ForwardArgs& args, Backend backend);
std::int64_t validate_backward_input(const Problem& problem, const BackwardInputArgs& args, Backend backend);
std::int64_t validate_backward_lora(const Problem& problem, const BackwardLoraArgs& args, Backend backend);

/// Each checks the problem first and returns the number of rows.
std::int64_t validate_activation(const Problem& problem, const ActivationArgs& args, Backend backend);
std::int64_t validate_activation_backward(const Problem& problem, const ActivationBackwardArgs& args, Backend backend);

void validate_dequantize(const DequantizeArgs& args);
void validate_arrange_scales(const ArrangeScalesArgs& args);

/// Backend, device and threads, which every engine has; what only some parts of it use, they check themselves.
void validate_options(const EngineOptions& options);

/// For the workspace queries: the problem, and that T is a number of tokens that it can route.
void validate_tokens(const Problem& problem, std::int64_t T);

/// Throws Error{unsupported} where the backend does not compute in the problem's dtype.
void check_backend(const Problem& problem, Backend backend);

/// A workspace that is given has `needed` bytes and is 256-byte aligned.
void check_workspace(const Workspace& workspace, std::size_t needed);

}  // namespace smlora::check
