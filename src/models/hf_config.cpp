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

/// What the experts of a family are beyond the numbers of its config.
enum class Kind {
    usual,              ///< [N, K], gates and values in halves, the activation of hidden_act
    inputs_first,       ///< [K, N], otherwise the usual
    clamped,            ///< gpt-oss's clamped SwiGLU, whatever hidden_act says
    clamped_with_bias,  ///< the same, [K, N], with biases
    interleaved,        ///< the same, gates and values interleaved
    by_the_model,       ///< gated by an activation that is the model's own code
    ungated,            ///< one projection up, one down
    normalised,         ///< a norm after each expert
    without_a_choice,   ///< none of the implementations of transformers that one can choose
};

struct Family {
    std::string_view model_type;
    Kind kind;
};

constexpr Family families[] = {
    {"aria", Kind::inputs_first},
    {"aria_text", Kind::inputs_first},
    {"dbrx", Kind::without_a_choice},
    {"deepseek_v4", Kind::by_the_model},
    {"glm5_next", Kind::by_the_model},
    {"glm5_next_text", Kind::by_the_model},
    {"gpt_oss", Kind::interleaved},
    {"hy_v4", Kind::by_the_model},
    {"hy_v4_vl", Kind::by_the_model},
    {"inkling2", Kind::by_the_model},
    {"inkling2_text", Kind::by_the_model},
    {"jetmoe", Kind::without_a_choice},
    {"llama4", Kind::without_a_choice},
    {"llama4_text", Kind::without_a_choice},
    {"longcat_flash", Kind::without_a_choice},
    {"minimax_m3_vl", Kind::clamped},
    {"minimax_m3_vl_text", Kind::clamped},
    {"muse_spark", Kind::normalised},
    {"muse_spark_text", Kind::normalised},
    {"nemotron_h", Kind::ungated},
    {"openai_privacy_filter", Kind::clamped_with_bias},
    {"step3p5", Kind::without_a_choice},
    {"step3p7", Kind::without_a_choice},
};

Kind kind_of(std::string_view model_type, const std::string& origin) {
    const auto* const family = std::find_if(std::begin(families), std::end(families),
                                            [&](const Family& one) { return one.model_type == model_type; });
    const Kind kind = family == std::end(families) ? Kind::usual : family->kind;
    if (kind == Kind::without_a_choice) {
        refuse(origin, fmt::format("model_type: {} computes its experts by its own code, for which one cannot choose "
                                   "smlora; --shape takes a projection",
                                   model_type));
    }
    if (kind == Kind::normalised) {
        refuse(origin,
               fmt::format("model_type: {} has a norm after each expert, which is not known of a config; --shape "
                           "takes a projection",
                           model_type));
    }
    return kind;
}

/// In the names of transformers. What is none of smlora's is computed by the model's own code.
std::optional<Activation> activation_of(const json& config, const std::string& origin) {
    const char* key = nullptr;
    const json* value = find(config, {"hidden_act", "hidden_activation", "mlp_hidden_act"}, key);
    if (value != nullptr && !value->is_string()) {
        refuse(origin, fmt::format("{}: expected the name of an activation, got {}", key, util::shown(*value)));
    }
    // A limit means another activation than the one that is named.
    if (find(config, {"swiglu_limit"}, key) != nullptr) return std::nullopt;
    const std::string name = value == nullptr ? "silu" : value->get<std::string>();
    if (name == "silu" || name == "swish") return Activation::swiglu;
    if (name == "gelu" || name == "gelu_python") return Activation::geglu;
    if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") return Activation::geglu_tanh;
    if (name == "relu") return Activation::reglu;
    return std::nullopt;
}

void set_kind(ModelShape& model, Kind kind, const json& config, const std::string& origin) {
    const bool clamped = kind == Kind::clamped || kind == Kind::clamped_with_bias || kind == Kind::interleaved;
    model.bias = kind == Kind::clamped_with_bias || kind == Kind::interleaved;
    // All other families of transformers keep the [N, K] of a linear layer.
    model.weight_layout = model.bias || kind == Kind::inputs_first ? WeightLayout::ekn : WeightLayout::enk;
    model.gated = kind != Kind::ungated;
    if (kind == Kind::interleaved) model.gate_layout = GateLayout::interleaved;
    if (clamped) {
        model.activation = Activation::swiglu_clamped;
    } else if (kind == Kind::by_the_model || kind == Kind::ungated) {
        model.activation.reset();
    } else {
        model.activation = activation_of(config, origin);
    }
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
    const Kind kind = kind_of(model_type, origin);
    const char* key = nullptr;
    if (find(config, {"num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"}, key) == nullptr) {
        refuse(origin,
               "not a Mixture-of-Experts model: expected a number of experts as num_experts, n_routed_experts, "
               "num_local_experts or moe_num_experts, found none");
    }
    model.num_experts = positive(config, {key}, origin);
    model.hidden_size = kind == Kind::ungated ? positive(config, {"moe_latent_size", "hidden_size"}, origin)
                                              : positive(config, {"hidden_size"}, origin);
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
    set_kind(model, kind, config, origin);
    return model;
}

ModelShape read_hf_config(const std::filesystem::path& path) {
    std::string origin;
    const std::string text = read_text(path, origin);
    return parse_hf_config(text, origin);
}

}  // namespace smlora::models
