#include "models/hf_config.hpp"

#include "models/hf_json.hpp"
#include "util/json.hpp"
#include "util/printable.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <optional>

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
        refuse(origin, fmt::format("{}: expected a whole number, got {}", key, util::shown(*value)));
    // The bound keeps 2 * intermediate_size and what is derived from it far from overflow.
    constexpr std::int64_t bound = std::int64_t{1} << 31;
    const auto number = value->get<std::int64_t>();
    if (number < 1 || number > bound) {
        refuse(origin, fmt::format("{}: expected 1 to {}, got {}", key, bound, util::shown(*value)));
    }
    return number;
}

/// What a config does not say of a family, by the model_type of the part that has the experts.
struct Family {
    std::string_view model_type;
    GateType gates = GateType::either;
    WeightLayout layout = WeightLayout::enk;
    bool bias = false;
    std::optional<Activation> activation = std::nullopt;  ///< whatever the config says
    GateLayout gate_layout = GateLayout::halves;
    std::string_view refused = {};  ///< why its experts cannot be described
};

// Those of transformers that multiply x by [K, N]; all others keep the [N, K] of a linear layer.
constexpr WeightLayout transposed = WeightLayout::ekn;
constexpr Family families[] = {
    {"aria_text", GateType::model, transposed},
    {"deepseek_v3", GateType::fp32},
    {"glm4_moe", GateType::fp32},
    {"gpt_oss", GateType::model, transposed, true, Activation::swiglu_clamped, GateLayout::interleaved},
    {"llama4", GateType::either, transposed},
    {"llama4_text", GateType::either, transposed},
    {"minimax_m2", GateType::fp32},
    {"minimax_m3_vl_text", GateType::fp32, WeightLayout::enk, false, Activation::swiglu_clamped},
    {"mixtral", GateType::fp32},
    {.model_type = "muse_spark_text", .refused = "a norm after each expert"},
    {.model_type = "nemotron_h", .refused = "experts without a gate projection"},
    {"olmoe", GateType::model},
    {"openai_privacy_filter", GateType::either, transposed, true, Activation::swiglu_clamped},
    {"qwen2_moe", GateType::model},
    {"qwen3_5_moe_text", GateType::model},
    {"qwen3_moe", GateType::model},
    {"qwen3_next", GateType::model},
    {"qwen3_vl_moe_text", GateType::model},
};

Family family_of(std::string_view model_type) {
    const auto* const found = std::ranges::find(families, model_type, &Family::model_type);
    return found == std::end(families) ? Family{} : *found;
}

/// In the names of transformers.
std::optional<Activation> activation_of(std::string_view name) {
    if (name == "silu" || name == "swish") return Activation::swiglu;
    if (name == "gelu") return Activation::geglu;
    if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") return Activation::geglu_tanh;
    if (name == "relu") return Activation::reglu;
    return std::nullopt;
}

std::optional<Activation> activation_of(const json& config, const Family& family) {
    if (family.activation) return family.activation;
    const char* key = nullptr;
    if (find(config, {"swiglu_limit"}, key) != nullptr) return std::nullopt;
    return activation_of(text_or(config, "hidden_act", text_or(config, "hidden_activation", "silu")));
}

}  // namespace

ModelShape parse_hf_config(std::string_view json_text, const std::string& origin) {
    const json outer = parse_object(json_text, origin);
    const json& config = text_config(outer);

    ModelShape model;
    const std::string model_type = text_or(config, "model_type", text_or(outer, "model_type", ""));
    if (!util::is_printable(model_type) || model_type.size() > 100) {
        refuse(origin, fmt::format("model_type: expected a name, got {}", util::shown(json(model_type))));
    }
    model.name = model_type.empty() ? origin : model_type;
    const Family family = family_of(model_type);
    if (!family.refused.empty()) {
        refuse(origin, fmt::format("model_type: {} has {}; give its projections one by one, with --shape", model_type,
                                   family.refused));
    }
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
    if (model.top_k > model.num_experts) {
        refuse(origin, fmt::format("num_experts_per_tok: expected at most {}, which {} is, got {}", model.num_experts,
                                   key, model.top_k));
    }
    model.dtype = dtype_of(config, outer);
    model.weight_layout = family.layout;
    model.bias = family.bias;
    model.activation = activation_of(config, family);
    model.gate_layout = family.gate_layout;
    model.gates = family.gates;
    return model;
}

ModelShape read_hf_config(const std::filesystem::path& path) {
    std::string origin;
    const std::string text = read_text(path, origin);
    return parse_hf_config(text, origin);
}

}  // namespace smlora::models
