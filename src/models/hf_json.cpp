#include "models/hf_json.hpp"

#include "util/json.hpp"
#include "util/printable.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

namespace smlora::models {

using nlohmann::json;

void refuse(const std::string& origin, const std::string& what) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: {}", origin, what));
}

namespace {

/// Python writes numbers that are none as words, which JSON has not: here they become text.
std::string with_words_as_text(std::string_view json_text) {
    constexpr std::string_view words[] = {"NaN", "-Infinity", "Infinity"};
    std::string text;
    text.reserve(json_text.size());
    bool in_text = false;
    for (std::size_t i = 0; i < json_text.size(); ++i) {
        const char c = json_text[i];
        if (in_text && c == '\\' && i + 1 < json_text.size()) {
            text += c;
            text += json_text[++i];
            continue;
        }
        if (c == '"') in_text = !in_text;
        const auto* const word = std::find_if(std::begin(words), std::end(words), [&](std::string_view one) {
            return !in_text && json_text.substr(i, one.size()) == one;
        });
        if (word == std::end(words)) {
            text += c;
            continue;
        }
        text += '"';
        text += *word;
        text += '"';
        i += word->size() - 1;
    }
    return text;
}

}  // namespace

json parse_object(std::string_view json_text, const std::string& origin) {
    json object;
    try {
        object = util::parse_json(with_words_as_text(json_text), true);
    } catch (const json::exception& error) {
        // Its text begins with the name of the JSON library's exception in brackets.
        const std::string_view text = error.what();
        const std::size_t end = text.find("] ");
        refuse(origin,
               fmt::format("expected JSON: {}", util::printable(end == text.npos ? text : text.substr(end + 2))));
    }
    if (object.is_discarded()) {
        refuse(origin, fmt::format("expected {}", util::json_limits));
    }
    if (!object.is_object()) refuse(origin, fmt::format("expected a JSON object, got {}", object.type_name()));
    return object;
}

std::string read_text(const std::filesystem::path& path, std::string& origin) {
    // A pipe has no size.
    constexpr std::size_t most_bytes = util::most_json_bytes;
    std::error_code ignored;
    const std::filesystem::path file = std::filesystem::is_directory(path, ignored) ? path / "config.json" : path;
    origin = file.string();
    std::ifstream stream(file, std::ios::binary);
    if (!stream) throw Error(ErrorCode::io, fmt::format("{}: cannot be read: {}", origin, std::strerror(errno)));
    std::string text;
    std::array<char, 1 << 16> piece;
    while (stream.read(piece.data(), piece.size()), stream.gcount() > 0) {
        text.append(piece.data(), static_cast<std::size_t>(stream.gcount()));
        if (text.size() > most_bytes) {
            throw Error(ErrorCode::io, fmt::format("{}: expected at most {} bytes, got more", origin, most_bytes));
        }
    }
    return text;
}

const json& text_config(const json& outer) {
    for (const char* key : {"text_config", "thinker_config", "language_config", "llm_config"}) {
        const auto inner = outer.find(key);
        if (inner != outer.end() && inner->is_object()) return text_config(*inner);
    }
    return outer;
}

const json& member(const json& object, const char* key) {
    static const auto& null = *new json;
    if (!object.is_object()) return null;
    const auto it = object.find(key);
    return it != object.end() ? *it : null;
}

std::string text_or(const json& object, const char* key, std::string otherwise) {
    const json& text = member(object, key);
    return text.is_string() ? text.get<std::string>() : std::move(otherwise);
}

DType dtype_of(const json& config, const json& outer, const std::string& origin) {
    const auto is_quantized = [](const json& level) { return !member(level, "quantization_config").is_null(); };
    for (const json* level : {&config, &outer}) {
        for (const char* key : {"dtype", "torch_dtype"}) {
            const json& type = member(*level, key);
            if (type.is_null()) continue;
            constexpr std::string_view module = "torch.";
            std::string text = type.is_string() ? type.get<std::string>() : "";
            if (text.compare(0, module.size(), module) == 0) text.erase(0, module.size());
            if (text == "bfloat16") return DType::bf16;
            if (text == "float16") return DType::fp16;
            if (text == "float32") return DType::fp32;
            // That of the codes; adapters beside them are trained in bf16.
            if (text != "auto" && !is_quantized(outer) && !is_quantized(config)) {
                refuse(origin,
                       fmt::format("{}: expected bfloat16, float16 or float32, got {}", key, util::shown(type)));
            }
        }
    }
    return DType::bf16;
}

}  // namespace smlora::models
