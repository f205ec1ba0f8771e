// Every kernel that a training step of a problem needs: what prewarming compiles.
#pragma once

#include "gpu/device.hpp"
#include "jit/kernel_spec.hpp"

#include <smlora/problem.hpp>

#include <cstdint>
#include <vector>

namespace smlora::ops {

/// The kernels of route, group, combine, forward, backward_input and backward_lora for T tokens, without duplicates.
[[nodiscard]] std::vector<jit::KernelSpec> step_kernels(const Problem& problem, std::int64_t T,
                                                        const gpu::DeviceFacts& facts);

}  // namespace smlora::ops
