// Reading the config.json of a Hugging Face model.
#pragma once

#include "models/model_shape.hpp"

#include <filesystem>
#include <string>
#include <string_view>

namespace smlora::models {

/// The shape of the routed experts that a config.json describes:
///   num_experts            num_experts, else n_routed_experts, num_local_experts or moe_num_experts
///   hidden_size            hidden_size; of experts without a gate moe_latent_size goes first
///   intermediate_size      moe_intermediate_size, else intermediate_size
///   top_k                  num_experts_per_tok, else num_experts_per_token, top_k_experts, moe_topk, moe_top_k or
///                          moe_k
///   dtype                  dtype, else torch_dtype; bf16 if there is none, or if it is that of quantised weights
/// A list, of a number for each layer, has to have one number in it. The keys may lie in `text_config`,
/// `thinker_config`, `language_config` or `llm_config` (models that also see or hear). Layout, bias, gate projection
/// and the type of gates follow from model_type, the activation from it or from hidden_act, else hidden_activation or
/// mlp_hidden_act; there is none for a name that smlora does not have, and with swiglu_limit, as the model's own code
/// computes it then.
/// Throws Error{invalid_argument} that names `origin`, the key, its value and what was expected, also for a model_type
/// whose experts smlora does not compute.
[[nodiscard]] ModelShape parse_hf_config(std::string_view json_text, const std::string& origin);

/// The same from a file, or from the config.json in a folder. Throws Error{io} when it cannot be read.
[[nodiscard]] ModelShape read_hf_config(const std::filesystem::path& path);

}  // namespace smlora::models
