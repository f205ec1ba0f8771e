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

/// A number, or that of each layer, which has to be the same in all.
const json& one_of_all(const json& value, const char* key, const std::string& origin) {
    if (!value.is_array() || value.empty()) return value;
    for (const json& other : value) {
        if (other != value.front()) {
            refuse(origin,
                   fmt::format("{}: expected the same number for all experts, got {}", key, util::shown(value)));
        }
    }
    return value.front();
}

std::int64_t positive(const json& config, std::initializer_list<const char*> keys, const std::string& origin) {
    const char* key = nullptr;
    const json* found = find(config, keys, key);
    if (found == nullptr) refuse(origin, fmt::format("expected one of the keys {}, found none", fmt::join(keys, ", ")));
    const json& value = one_of_all(*found, key, origin);
    if (!value.is_number_integer())
        refuse(origin, fmt::format("{}: expected a whole number, got {}", key, util::shown(*found)));
    // The bound keeps 2 * intermediate_size and what is derived from it far from overflow.
    constexpr std::int64_t bound = std::int64_t{1} << 31;
    const auto number = value.get<std::int64_t>();
    if (number < 1 || number > bound) {
        refuse(origin, fmt::format("{}: expected 1 to {}, got {}", key, bound, util::shown(value)));
    }
    return number;
}

/// What a config does not say of a family.
struct Family {
    std::string_view model_type;  ///< of the part that has the experts, without "_text" at its end
    GateType gates = GateType::either;
    WeightLayout layout = WeightLayout::enk;
    bool bias = false;
    std::optional<Activation> activation = std::nullopt;  ///< whatever the config says
    GateLayout gate_layout = GateLayout::halves;
    bool own_activation = false;  ///< the model's own code, whatever the config says
    bool gated = true;
    std::string_view refused = {};  ///< why its experts cannot be described
};

// Those of transformers that multiply x by [K, N]; all others keep the [N, K] of a linear layer.
constexpr WeightLayout transposed = WeightLayout::ekn;
constexpr std::string_view own_code = "computes its experts by its own code, for which one cannot choose smlora";
constexpr Family families[] = {
    {"aria", GateType::model, transposed},
    {.model_type = "dbrx", .refused = own_code},
    {"deepseek_v3", GateType::fp32},
    {.model_type = "deepseek_v4", .own_activation = true},
    {.model_type = "doge", .refused = own_code},
    {"glm4_moe", GateType::fp32},
    {.model_type = "glm5_next", .own_activation = true},
    {"gpt_oss", GateType::model, transposed, true, Activation::swiglu_clamped, GateLayout::interleaved},
    {.model_type = "hy_v4", .own_activation = true},
    {.model_type = "hy_v4_vl", .own_activation = true},
    {.model_type = "inkling2", .own_activation = true},
    {.model_type = "jetmoe", .refused = own_code},
    {.model_type = "llama4", .refused = own_code},
    {.model_type = "longcat_flash", .refused = own_code},
    {"minimax_m2", GateType::fp32},
    {"minimax_m3_vl", GateType::fp32, WeightLayout::enk, false, Activation::swiglu_clamped},
    {"mixtral", GateType::fp32},
    {.model_type = "muse_spark", .refused = "has a norm after each expert"},
    {.model_type = "nemotron_h", .gated = false},
    {"olmoe", GateType::model},
    {"openai_privacy_filter", GateType::either, transposed, true, Activation::swiglu_clamped},
    {"qwen2_moe", GateType::model},
    {"qwen3_5_moe", GateType::model},
    {"qwen3_moe", GateType::model},
    {"qwen3_next", GateType::model},
    {"qwen3_vl_moe", GateType::model},
    {.model_type = "step3p5", .refused = own_code},
    {.model_type = "step3p7", .refused = own_code},
};

Family family_of(std::string_view model_type) {
    constexpr std::string_view part = "_text";
    if (model_type.ends_with(part)) model_type.remove_suffix(part.size());
    const auto* const found = std::ranges::find(families, model_type, &Family::model_type);
    return found == std::end(families) ? Family{} : *found;
}

/// In the names of transformers.
std::optional<Activation> activation_of(std::string_view name) {
    if (name == "silu" || name == "swish") return Activation::swiglu;
    if (name == "gelu" || name == "gelu_python") return Activation::geglu;
    if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") return Activation::geglu_tanh;
    if (name == "relu") return Activation::reglu;
    return std::nullopt;
}

std::optional<Activation> activation_of(const json& config, const Family& family, const std::string& origin) {
    if (family.activation) return family.activation;
    if (family.own_activation || !family.gated) return std::nullopt;
    const char* key = nullptr;
    const json* value = find(config, {"hidden_act", "hidden_activation", "mlp_hidden_act"}, key);
    if (value != nullptr && !value->is_string()) {
        refuse(origin, fmt::format("{}: expected the name of an activation, got {}", key, util::shown(*value)));
    }
    // A limit means another activation than the one that is named.
    if (find(config, {"swiglu_limit"}, key) != nullptr) return std::nullopt;
    return activation_of(value == nullptr ? "silu" : value->get<std::string>());
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
        refuse(origin, fmt::format("model_type: {} {}; give its projections one by one, with --shape", model_type,
                                   family.refused));
    }
    const char* key = nullptr;
    if (find(config, {"num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"}, key) == nullptr) {
        refuse(origin,
               "not a Mixture-of-Experts model: expected a number of experts as num_experts, n_routed_experts, "
               "num_local_experts or moe_num_experts, found none");
    }
    model.num_experts = positive(config, {key}, origin);
    model.hidden_size = family.gated ? positive(config, {"hidden_size"}, origin)
                                     : positive(config, {"moe_latent_size", "hidden_size"}, origin);
    // DeepSeek's and Qwen's intermediate_size is that of their dense layers, so the experts' own key goes first.
    model.intermediate_size = positive(config, {"moe_intermediate_size", "intermediate_size"}, origin);
    const char* top_k = nullptr;
    const std::initializer_list<const char*> top_k_keys = {
        "num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k"};
    (void)find(config, top_k_keys, top_k);
    model.top_k = positive(config, top_k_keys, origin);
    if (model.top_k > model.num_experts) {
        refuse(origin,
               fmt::format("{}: expected at most {}, which {} is, got {}", top_k, model.num_experts, key, model.top_k));
    }
    model.dtype = dtype_of(config, outer, origin);
    model.weight_layout = family.layout;
    model.bias = family.bias;
    model.activation = activation_of(config, family, origin);
    model.gate_layout = family.gate_layout;
    model.gates = family.gates;
    model.gated = family.gated;
    return model;
}

ModelShape read_hf_config(const std::filesystem::path& path) {
    std::string origin;
    const std::string text = read_text(path, origin);
    return parse_hf_config(text, origin);
}

}  // namespace smlora::models
