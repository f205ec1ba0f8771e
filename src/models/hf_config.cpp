#include "models/hf_config.hpp"

#include "models/hf_json.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>

namespace smlora::models {
namespace {

using nlohmann::json;

/// The first of `keys` that is there and not null.
const json* find(const json& config, std::initializer_list<const char*> keys, const char*& key) {
    for (const char* candidate : keys) {
        const auto it = config.find(candidate);
        if (it != config.end() && !it->is_null()) {
            key = candidate;
            return &*it;
        }
    }
    return nullptr;
}

std::int64_t positive(const json& config, std::initializer_list<const char*> keys, const std::string& origin) {
    const char* key = nullptr;
    const json* value = find(config, keys, key);
    if (value == nullptr) refuse(origin, fmt::format("expected one of the keys {}, found none", fmt::join(keys, ", ")));
    if (!value->is_number_integer())
        refuse(origin, fmt::format("{}: expected a whole number, got {}", key, shown(*value)));
    // The bound keeps 2 * intermediate_size and what is derived from it far from overflow.
    constexpr std::int64_t bound = std::int64_t{1} << 31;
    const auto number = value->get<std::int64_t>();
    if (number < 1 || number > bound) {
        refuse(origin, fmt::format("{}: expected 1 to {}, got {}", key, bound, shown(*value)));
    }
    return number;
}

/// In the names of transformers; what is none of smlora's is computed by the model's own code, and swiglu compiled in
/// vain.
Activation activation_of(std::string_view name) {
    if (name == "gelu") return Activation::geglu;
    if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") return Activation::geglu_tanh;
    if (name == "relu") return Activation::reglu;
    return Activation::swiglu;
}

}  // namespace

ModelShape parse_hf_config(std::string_view json_text, const std::string& origin) {
    const json outer = parse_object(json_text, origin);
    const json& config = text_config(outer);

    ModelShape model;
    const std::string model_type = text_or(config, "model_type", text_or(outer, "model_type", ""));
    if (std::any_of(model_type.begin(), model_type.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
        refuse(origin, fmt::format("model_type: expected a name, got {}", shown(model_type)));
    }
    model.name = model_type.empty() ? origin : model_type;
    const char* key = nullptr;
    if (find(config, {"num_experts", "n_routed_experts", "num_local_experts"}, key) == nullptr) {
        refuse(origin,
               "not a Mixture-of-Experts model: expected a number of experts as num_experts, n_routed_experts or "
               "num_local_experts, found none");
    }
    model.num_experts = positive(config, {key}, origin);
    model.hidden_size = positive(config, {"hidden_size"}, origin);
    // DeepSeek's and Qwen's intermediate_size is that of their dense layers, so the experts' own key goes first.
    model.intermediate_size = positive(config, {"moe_intermediate_size", "intermediate_size"}, origin);
    model.top_k = positive(config, {"num_experts_per_tok"}, origin);
    model.dtype = dtype_of(config, outer);
    const bool gpt_oss = model_type == "gpt_oss";
    const bool llama4 = model_type == "llama4" || model_type == "llama4_text";
    // The only families of transformers that multiply x by [K, N]; all others keep the [N, K] of a linear layer.
    model.weight_layout = gpt_oss || llama4 ? WeightLayout::ekn : WeightLayout::enk;
    model.bias = gpt_oss;
    if (gpt_oss) {
        model.activation = Activation::swiglu_clamped;
        model.gate_layout = GateLayout::interleaved;
    } else {
        model.activation = activation_of(text_or(config, "hidden_act", text_or(config, "hidden_activation", "silu")));
    }
    return model;
}

ModelShape read_hf_config(const std::filesystem::path& path) {
    std::string origin;
    const std::string text = read_text(path, origin);
    return parse_hf_config(text, origin);
}

}  // namespace smlora::models
