// Reading the config.json of a Hugging Face model.
#pragma once

#include "models/model_shape.hpp"

#include <filesystem>
#include <string>
#include <string_view>

namespace smlora::models {

/// The shape of the routed experts that a config.json describes:
///   num_experts            num_experts, else n_routed_experts, else num_local_experts
///   hidden_size            hidden_size
///   intermediate_size      moe_intermediate_size, else intermediate_size
///   top_k                  num_experts_per_tok
///   dtype                  dtype, else torch_dtype, where it is one that smlora trains in; else bf16
/// The keys may lie in `text_config` (models that also see or hear). Layout, bias and the type of gates follow from
/// model_type, the activation from it or from hidden_act, else hidden_activation; there is none for a name that smlora
/// does not have, and with swiglu_limit, as the model's own code computes it then. Families whose experts are no gated
/// MLP are refused.
/// Throws Error{invalid_argument} that names `origin`, the key, its value and what was expected.
[[nodiscard]] ModelShape parse_hf_config(std::string_view json_text, const std::string& origin);

/// The same from a file, or from the config.json in a folder. Throws Error{io} when it cannot be read.
[[nodiscard]] ModelShape read_hf_config(const std::filesystem::path& path);

}  // namespace smlora::models
