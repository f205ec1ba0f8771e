// Launching the adapter's gradients: how rows are cut into pieces, and the memory that the pieces need.
#pragma once

#include "args/lora_gradient.h"
#include "engine/cuda_call.hpp"
#include "plan/plan.hpp"

#include <cstdint>

namespace smlora::families {

/// Bytes of the pieces of one gradient of `width` columns.
[[nodiscard]] std::int64_t partials_bytes(const Problem& problem, std::int64_t width, std::int64_t M);

/// Both gradients; a side that is not wanted has no output.
void launch_gradients(engine::CudaCall& call, const plan::Plan& plan, const Problem& problem, LoraGradientPair pair);

}  // namespace smlora::families
