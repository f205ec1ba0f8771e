#include "models/hf_json.hpp"

#include "util/json.hpp"
#include "util/printable.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

namespace smlora::models {

using nlohmann::json;

void refuse(const std::string& origin, const std::string& what) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: {}", origin, what));
}

json parse_object(std::string_view json_text, const std::string& origin) {
    json object;
    try {
        object = util::parse_json(json_text, true);
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
    const auto text = outer.find("text_config");
    return text != outer.end() && text->is_object() ? *text : outer;
}

std::string text_or(const json& object, const char* key, std::string otherwise) {
    const auto it = object.find(key);
    return it != object.end() && it->is_string() ? it->get<std::string>() : std::move(otherwise);
}

DType dtype_of(const json& config, const json& outer) {
    for (const json* level : {&config, &outer}) {
        const std::string text = text_or(*level, "dtype", text_or(*level, "torch_dtype", ""));
        if (text == "bfloat16") return DType::bf16;
        if (text == "float16") return DType::fp16;
        if (text == "float32") return DType::fp32;
    }
    // Quantised checkpoints name no such type; their adapters are trained in bf16.
    return DType::bf16;
}

}  // namespace smlora::models
