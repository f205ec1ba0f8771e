// --weights: how frozen weights are stored.
#pragma once

#include "models/hf_quantization.hpp"

#include <string>

namespace smlora::tool {

/// ENCODING[:BLOCK][:SCALES][:double][:divisor][:partsN], what follows the encoding in any order and each at most once:
/// "plain", "nf4", "nf4:128:double", "fp8:128:bf16", "fp8:parts2", "nvfp4:divisor". What is not said is as in
/// usual_format; without a type of scales, the others that checkpoints of mxfp4, mxfp8 and fp8 have are other_scales.
/// Throws UsageError, but not for a block or a type of scales that the encoding cannot have: validate()
/// of the problem does.
[[nodiscard]] models::StoredExperts parse_weights(const std::string& text);

}  // namespace smlora::tool
