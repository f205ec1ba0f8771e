#include "models/hf_config.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <utility>

namespace smlora::models {
namespace {

using nlohmann::json;

[[noreturn]] void fail(const std::string& origin, const std::string& what) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: {}", origin, what));
}

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
    if (value == nullptr) fail(origin, fmt::format("expected one of the keys {}, found none", fmt::join(keys, ", ")));
    if (!value->is_number_integer())
        fail(origin, fmt::format("{}: expected a whole number, got {}", key, value->dump()));
    // The bound keeps 2 * intermediate_size and what is derived from it far from overflow.
    constexpr std::int64_t bound = std::int64_t{1} << 31;
    const auto number = value->get<std::int64_t>();
    if (number < 1 || number > bound) {
        fail(origin, fmt::format("{}: expected 1 to {}, got {}", key, bound, value->dump()));
    }
    return number;
}

DType dtype_of(const json& config, const json& outer) {
    const char* key = nullptr;
    for (const json* level : {&config, &outer}) {
        const json* value = find(*level, {"dtype", "torch_dtype"}, key);
        if (value == nullptr || !value->is_string()) continue;
        const auto text = value->get<std::string>();
        if (text == "bfloat16") return DType::bf16;
        if (text == "float16") return DType::fp16;
        if (text == "float32") return DType::fp32;
    }
    // Quantised checkpoints name no such type; their adapters are trained in bf16.
    return DType::bf16;
}

std::string text_or(const json& config, const char* key, std::string otherwise) {
    const auto it = config.find(key);
    return it != config.end() && it->is_string() ? it->get<std::string>() : std::move(otherwise);
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
    json outer;
    try {
        outer = json::parse(json_text);
    } catch (const json::parse_error& error) {
        // Its text begins with the name of the JSON library's exception in brackets.
        const std::string_view text = error.what();
        const std::size_t end = text.find("] ");
        fail(origin, fmt::format("expected JSON: {}", end == text.npos ? text : text.substr(end + 2)));
    }
    if (!outer.is_object()) fail(origin, fmt::format("expected a JSON object, got {}", outer.type_name()));
    const auto text_config = outer.find("text_config");
    const json& config = text_config != outer.end() && text_config->is_object() ? *text_config : outer;

    ModelShape model;
    const std::string model_type = text_or(config, "model_type", text_or(outer, "model_type", ""));
    model.name = model_type.empty() ? origin : model_type;
    const char* key = nullptr;
    if (find(config, {"num_experts", "n_routed_experts", "num_local_experts"}, key) == nullptr) {
        fail(origin,
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
    std::error_code ignored;
    const std::filesystem::path file = std::filesystem::is_directory(path, ignored) ? path / "config.json" : path;
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
        throw Error(ErrorCode::io, fmt::format("{}: cannot be read: {}", file.string(), std::strerror(errno)));
    }
    const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    return parse_hf_config(text, file.string());
}

}  // namespace smlora::models
