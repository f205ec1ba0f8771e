#include "models/model_table.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace smlora::models {
namespace {

struct Alias {
    std::string_view alias;
    std::string_view name;
};

// What follows the owner in a repository's name, in lower case.
constexpr std::array aliases{
    Alias{"qwen3-30b-a3b-base", "qwen3-30b-a3b"},
    Alias{"qwen3-30b-a3b-instruct-2507", "qwen3-30b-a3b"},
    Alias{"qwen3-30b-a3b-thinking-2507", "qwen3-30b-a3b"},
    Alias{"qwen3-coder-30b-a3b-instruct", "qwen3-30b-a3b"},
    Alias{"qwen3-235b-a22b-instruct-2507", "qwen3-235b-a22b"},
    Alias{"qwen3-235b-a22b-thinking-2507", "qwen3-235b-a22b"},
    Alias{"qwen3.5", "qwen35"},
    Alias{"qwen3.5-35b-a3b", "qwen35"},
    Alias{"qwen3.5-35b-a3b-base", "qwen35"},
    Alias{"olmoe-1b-7b-0924", "olmoe"},
    Alias{"olmoe-1b-7b-0125", "olmoe"},
    Alias{"olmoe-1b-7b-0924-instruct", "olmoe"},
    Alias{"olmoe-1b-7b-0125-instruct", "olmoe"},
    Alias{"mixtral", "mixtral-8x7b"},
    Alias{"mixtral-8x7b-v0.1", "mixtral-8x7b"},
    Alias{"mixtral-8x7b-instruct-v0.1", "mixtral-8x7b"},
    Alias{"deepseek-v3-base", "deepseek-v3"},
    Alias{"deepseek-v3-0324", "deepseek-v3"},
    Alias{"deepseek-v3.1", "deepseek-v3"},
    Alias{"deepseek-r1", "deepseek-v3"},
};

std::string lower(std::string_view text) {
    std::string result(text);
    std::transform(result.begin(), result.end(), result.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return result;
}

}  // namespace

const std::vector<ModelShape>& known_models() {
    // Experts are stored [E, N, K] by every one of these but gpt-oss, which stores [E, K, N] and has biases.
    static const auto& models = *new std::vector<ModelShape>{
        {"qwen3-30b-a3b",
         128,
         2048,
         768,
         8,
         WeightLayout::enk,
         false,
         DType::bf16,
         Activation::swiglu,
         GateLayout::halves,
         {},
         GateType::model},
        {"qwen3-235b-a22b",
         128,
         4096,
         1536,
         8,
         WeightLayout::enk,
         false,
         DType::bf16,
         Activation::swiglu,
         GateLayout::halves,
         {},
         GateType::model},
        {"qwen35",
         256,
         2048,
         512,
         8,
         WeightLayout::enk,
         false,
         DType::bf16,
         Activation::swiglu,
         GateLayout::halves,
         {},
         GateType::model},
        {"olmoe",
         64,
         2048,
         1024,
         8,
         WeightLayout::enk,
         false,
         DType::bf16,
         Activation::swiglu,
         GateLayout::halves,
         {},
         GateType::model},
        {"mixtral-8x7b",
         8,
         4096,
         14336,
         2,
         WeightLayout::enk,
         false,
         DType::bf16,
         Activation::swiglu,
         GateLayout::halves,
         {},
         GateType::fp32},
        {"gpt-oss-20b",
         32,
         2880,
         2880,
         4,
         WeightLayout::ekn,
         true,
         DType::bf16,
         Activation::swiglu_clamped,
         GateLayout::interleaved,
         {},
         GateType::model},
        {"gpt-oss-120b",
         128,
         2880,
         2880,
         4,
         WeightLayout::ekn,
         true,
         DType::bf16,
         Activation::swiglu_clamped,
         GateLayout::interleaved,
         {},
         GateType::model},
        {"deepseek-v3",
         256,
         7168,
         2048,
         8,
         WeightLayout::enk,
         false,
         DType::bf16,
         Activation::swiglu,
         GateLayout::halves,
         {},
         GateType::fp32},
    };
    return models;
}

const ModelShape& model_by_name(std::string_view name) {
    std::string key = lower(name);
    if (const auto slash = key.rfind('/'); slash != std::string::npos) key.erase(0, slash + 1);
    for (const Alias& alias : aliases) {
        if (alias.alias == key) key = alias.name;
    }
    std::vector<std::string_view> names;
    for (const ModelShape& model : known_models()) {
        if (model.name == key) return model;
        names.push_back(model.name);
    }
    throw Error(ErrorCode::invalid_argument, fmt::format("model: expected one of {}, got '{}'; the config.json of any "
                                                         "other model can be given instead",
                                                         fmt::join(names, ", "), name));
}

}  // namespace smlora::models
