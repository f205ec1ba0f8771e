#include "models/hf_quantization.hpp"

#include "models/hf_config.hpp"
#include "models/hf_json.hpp"
#include "util/json.hpp"
#include "util/printable.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

namespace smlora::models {
namespace {

using nlohmann::json;

bool flag(const json& object, const char* key) {
    const json& value = member(object, key);
    return value.is_boolean() && value.get<bool>();
}

/// Whether a module's name or pattern is of routed experts: "mlp.experts.0", but not "mlp.shared_experts".
bool names_experts(const std::string& text) {
    constexpr std::string_view word = "experts", shared = "shared_";
    for (std::size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) {
        if (at < shared.size() || text.compare(at - shared.size(), shared.size(), shared) != 0) return true;
    }
    return false;
}

/// Of one layer, such as "model.layers.0.mlp.experts".
bool names_a_layer(const std::string& text) {
    constexpr std::string_view word = "layers.";
    const std::size_t at = text.find(word);
    const std::size_t next = at + word.size();
    return at != text.npos && next < text.size() && text[next] >= '0' && text[next] <= '9';
}

bool any_text(const json& list, const auto& fits) {
    return list.is_array() && std::any_of(list.begin(), list.end(), [&](const json& entry) {
               return entry.is_string() && fits(entry.template get_ref<const std::string&>());
           });
}

/// Whether a list of what is not quantised has the experts of all layers.
bool leaves_experts(const json& quantization) {
    constexpr std::array keys{"modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules",
                              "llm_int8_skip_modules"};
    return std::any_of(keys.begin(), keys.end(), [&](const char* key) {
        return any_text(member(quantization, key),
                        [](const std::string& text) { return names_experts(text) && !names_a_layer(text); });
    });
}

/// scale_fmt says how scales were rounded, not how they are stored. DeepSeek-V3.1 has powers of two in fp32, Qwen3 has
/// bf16, and MXFP8 has bytes; where Transformers keeps FP8, it makes fp32 of bf16 and e8m0 of bytes.
std::vector<DType> other_scales_of(const WeightFormat& format) {
    if (format.encoding == Encoding::mxfp8) return {DType::uint8};
    if (format.encoding == Encoding::fp8) return {format.scales == DType::e8m0 ? DType::fp32 : DType::bf16};
    return {};
}

/// Reads one quantization_config.
class Reader {
 public:
    Reader(const json& quantization, const json& config, const json& outer, std::string_view text,
           const std::string& origin)
        : quantization_(quantization), config_(config), outer_(outer), text_(text), origin_(origin) {}

    [[nodiscard]] StoredExperts read() const {
        const std::string method = method_of();
        StoredExperts stored{.source = fmt::format("quantization_config of {}", util::printable(method))};
        if (leaves_experts(quantization_)) {
            stored.source += ", which leaves the experts out";
            return stored;
        }
        if (method == "bitsandbytes") {
            stored.format = bitsandbytes();
            stored.assumption = "where Transformers alone loads the model, fused experts stay plain";
        } else if (method == "mxfp4") {
            stored.format = usual_format(Encoding::mxfp4);
            stored.format.scales = DType::uint8;
        } else if (method == "mxfp8") {
            stored.format = usual_format(Encoding::mxfp8);
        } else if (method == "fp8") {
            stored.format = fp8();
        } else if (method == "compressed-tensors") {
            stored.format = compressed_tensors();
        } else if (method == "modelopt") {
            stored.format = modelopt();
        } else if (method == "torchao") {
            stored.format = torchao();
            stored.assumption = "where Transformers alone loads the model, fused experts stay plain";
        } else {
            fail("quant_method",
                 "bitsandbytes, mxfp4, mxfp8, fp8, compressed-tensors, modelopt or torchao, whose experts smlora reads",
                 member(quantization_, "quant_method"));
        }
        if (method != "torchao") stored.other_scales = other_scales_of(stored.format);
        return stored;
    }

 private:
    [[noreturn]] void fail(const std::string& key, const std::string& expected, const json& value) const {
        refuse(origin_, fmt::format("quantization_config: {}: expected {}, got {}", key, expected, util::shown(value)));
    }

    /// bitsandbytes wrote none at first.
    [[nodiscard]] std::string method_of() const {
        const bool bits = flag(quantization_, "load_in_4bit") || flag(quantization_, "load_in_8bit");
        return text_or(quantization_, "quant_method", bits ? "bitsandbytes" : "");
    }

    [[nodiscard]] WeightFormat bitsandbytes() const {
        if (flag(quantization_, "load_in_8bit")) return usual_format(Encoding::int8);
        if (!flag(quantization_, "load_in_4bit")) {
            fail("load_in_4bit", "true, or load_in_8bit", member(quantization_, "load_in_4bit"));
        }
        // What BitsAndBytesConfig has where nothing is said.
        const std::string type = text_or(quantization_, "bnb_4bit_quant_type", "fp4");
        if (type != "nf4" && type != "fp4") fail("bnb_4bit_quant_type", "nf4 or fp4", type);
        WeightFormat format = usual_format(type == "nf4" ? Encoding::nf4 : Encoding::fp4);
        if (flag(quantization_, "bnb_4bit_use_double_quant")) {
            format.scales = DType::uint8;
            format.outer_block = 256;
        }
        return format;
    }

    /// Of two numbers that are the same; `others` is what the key may be instead.
    [[nodiscard]] std::int64_t square(const std::string& key, const json& sides, const std::string& others = "") const {
        const bool fits = sides.is_array() && sides.size() == 2 && sides[0].is_number_integer() &&
                          sides[0] == sides[1] && sides[0] > 0 && sides[0] <= 1 << 16;
        if (!fits) fail(key, "the two sides of a square, such as [128, 128]" + others, sides);
        return sides[0].get<std::int64_t>();
    }

    /// The side of a square that any matrix of an expert fits.
    [[nodiscard]] std::int64_t longest_side() const {
        const ModelShape model = parse_hf_config(text_, origin_);
        return std::max(model.hidden_size, model.intermediate_size);
    }

    [[nodiscard]] WeightFormat fp8() const {
        const std::string experts = text_or(quantization_, "expert_dtype", text_or(config_, "expert_dtype", "fp8"));
        if (experts == "fp4") return usual_format(Encoding::mxfp4);
        if (experts != "fp8") fail("expert_dtype", "fp8 or fp4", experts);
        constexpr const char* key = "weight_block_size";
        const json& sides = member(quantization_, key);
        if (sides == json::array({1, 32})) return usual_format(Encoding::mxfp8);
        WeightFormat format = usual_format(Encoding::fp8);
        // As FineGrainedFP8Config of Transformers: a key that is missing stands for the usual block, null for none.
        if (quantization_.contains(key)) {
            format.block = sides.is_null() ? longest_side() : square(key, sides, ", or [1, 32], or null");
        }
        const std::string scales = text_or(quantization_, "scale_fmt", "float");
        if (scales != "float" && scales != "ue8m0") fail("scale_fmt", "float or ue8m0", scales);
        if (scales == "ue8m0") format.scales = DType::e8m0;
        return format;
    }

    /// The scheme of the experts among config_groups.
    [[nodiscard]] const json& group() const {
        const json& groups = member(quantization_, "config_groups");
        const json* of_linear = nullptr;
        if (groups.is_object()) {
            for (const json& one : groups) {
                const json& targets = member(one, "targets");
                if (any_text(targets, names_experts)) return one;
                if (any_text(targets, [](const std::string& text) { return text == "Linear"; })) of_linear = &one;
            }
        }
        if (of_linear == nullptr) fail("config_groups", "one whose targets are the experts or Linear", groups);
        return *of_linear;
    }

    [[nodiscard]] WeightFormat compressed_tensors() const {
        const json& one = group();
        const json& weights = member(one, "weights");
        const std::string scheme = text_or(one, "format", text_or(quantization_, "format", ""));
        if (scheme == "nvfp4-pack-quantized") {
            WeightFormat format = usual_format(Encoding::nvfp4);
            format.global_scale = GlobalScale::divisor;
            return format;
        }
        if (scheme == "mxfp4-pack-quantized") {
            WeightFormat format = usual_format(Encoding::mxfp4);
            format.scales = DType::uint8;
            return format;
        }
        if (scheme == "pack-quantized") return groups_of_integers(weights);
        if (scheme == "float-quantized" && text_or(weights, "strategy", "") == "block") {
            WeightFormat format = usual_format(Encoding::fp8);
            format.block = square("block_structure", member(weights, "block_structure"));
            return format;
        }
        fail("config_groups: format",
             "pack-quantized, nvfp4-pack-quantized, mxfp4-pack-quantized, or float-quantized in blocks", one);
    }

    [[nodiscard]] WeightFormat groups_of_integers(const json& weights) const {
        const json& size = member(weights, "group_size");
        const bool fits = member(weights, "num_bits") == 4 && text_or(weights, "type", "") == "int" &&
                          text_or(weights, "strategy", "") == "group" && flag(weights, "symmetric") &&
                          size.is_number_integer() && size > 0 && size <= 1 << 16;
        if (!fits) fail("config_groups: weights", "symmetric groups of 4-bit integers", weights);
        WeightFormat format = usual_format(Encoding::int4);
        format.block = size.get<std::int64_t>();
        format.scales = dtype_of(config_, outer_, origin_);
        return format;
    }

    [[nodiscard]] WeightFormat modelopt() const {
        if (text_or(quantization_, "quant_algo", "") != "NVFP4") {
            fail("quant_algo", "NVFP4", member(quantization_, "quant_algo"));
        }
        return usual_format(Encoding::nvfp4);
    }

    /// The scheme of the experts: of one that has them by name, else of all.
    [[nodiscard]] const json& scheme() const {
        const json& all = member(member(quantization_, "quant_type"), "default");
        const json& by_name = member(member(all, "_data"), "fqn_to_config");
        const json& of_modules = by_name.is_null() ? member(member(all, "_data"), "module_fqn_to_config") : by_name;
        if (!of_modules.is_object()) return all;
        for (const auto& [name, one] : of_modules.items()) {
            if (names_experts(name)) return one;
        }
        return member(of_modules, "_default");
    }

    [[nodiscard]] WeightFormat torchao() const {
        const json& one = scheme();
        const std::string type = text_or(one, "_type", "");
        if (type.starts_with("NVFP4")) return usual_format(Encoding::nvfp4);
        if (type.starts_with("MX")) {
            const json& dtype = member(member(one, "_data"), "weight_dtype");
            const std::string element = dtype.is_string() ? dtype.get<std::string>() : text_or(dtype, "_data", "");
            if (element.ends_with("float4_e2m1fn_x2")) return usual_format(Encoding::mxfp4);
            if (element.ends_with("float8_e4m3fn")) return usual_format(Encoding::mxfp8);
            fail("quant_type: weight_dtype", "float4_e2m1fn_x2 or float8_e4m3fn", dtype);
        }
        fail("quant_type", "a scheme of NVFP4 or MX", one.is_null() ? member(quantization_, "quant_type") : one);
    }

    const json& quantization_;
    const json& config_;
    const json& outer_;
    std::string_view text_;
    const std::string& origin_;
};

}  // namespace

StoredExperts parse_hf_quantization(std::string_view json_text, const std::string& origin) {
    const json outer = parse_object(json_text, origin);
    const json& config = text_config(outer);
    for (const json* level : {&config, &outer}) {
        const json& quantization = member(*level, "quantization_config");
        if (quantization.is_null()) continue;
        if (!quantization.is_object()) {
            refuse(origin, fmt::format("quantization_config: expected an object, got {}", util::shown(quantization)));
        }
        return Reader(quantization, config, outer, json_text, origin).read();
    }
    return {};
}

StoredExperts read_hf_quantization(const std::filesystem::path& path) {
    std::string origin;
    const std::string text = read_text(path, origin);
    return parse_hf_quantization(text, origin);
}

}  // namespace smlora::models
