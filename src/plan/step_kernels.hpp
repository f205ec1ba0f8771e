// Every kernel that a training step of a problem needs: what prewarming compiles.
#pragma once

#include "gpu/device.hpp"
#include "jit/kernel_spec.hpp"
#include "plan/plan.hpp"

#include <smlora/prewarm.hpp>
#include <smlora/problem.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace smlora::plan {

/// The choices for the pieces of work of a request.
using KnownChoices = std::function<Choices(const Request&)>;

/// The kernels of route, group, combine, forward, backward_input and backward_lora for T tokens, without duplicates.
/// Quantised weights are unpacked to at most `unpack_limit` bytes at once.
[[nodiscard]] std::vector<jit::KernelSpec> step_kernels(const Problem& problem, std::int64_t T,
                                                        const gpu::DeviceFacts& facts, const KnownChoices& choices = {},
                                                        std::uint64_t unpack_limit = families::default_unpack_limit);

/// How a step unpacks the weights of a problem, whose memory is aligned to 16 bytes, to at most `limit` bytes at once;
/// nothing for plain ones.
[[nodiscard]] std::optional<Unpack> aligned_unpack(const Problem& problem, std::uint64_t limit);

/// The kernels of activation and activation_backward on rows of `width` numbers, 16-byte aligned where the width
/// allows it; with the gates of those of the `problems` that have some, no bias, and take such rows.
[[nodiscard]] std::vector<jit::KernelSpec> activation_kernels(const PrewarmActivation& activation,
                                                              const std::vector<Problem>& problems,
                                                              const gpu::DeviceFacts& facts);

/// The requests of forward, backward_input and backward_lora in a training step of T tokens, which are what tuning a
/// problem measures. Adapters are stored as the kernels read them, and rows 16-byte aligned where K and N allow it.
/// Quantised weights are unpacked to at most `unpack_limit` bytes at once.
[[nodiscard]] std::vector<Request> step_requests(const Problem& problem, std::int64_t T,
                                                 std::uint64_t unpack_limit = families::default_unpack_limit);

}  // namespace smlora::plan
