// The models that are known by name.
#pragma once

#include "models/model_shape.hpp"

#include <string_view>
#include <vector>

namespace smlora::models {

[[nodiscard]] const std::vector<ModelShape>& known_models();

/// By name, whatever its case; the names of Hugging Face repositories ("Qwen/Qwen3-30B-A3B") are known too. Throws
/// Error{invalid_argument} that lists the known names.
[[nodiscard]] const ModelShape& model_by_name(std::string_view name);

}  // namespace smlora::models
