// What the readers of a config.json have in common.
#pragma once

#include <smlora/dtype.hpp>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <string_view>

namespace smlora::models {

/// Throws Error{invalid_argument} "origin: what".
[[noreturn]] void refuse(const std::string& origin, const std::string& what);

/// A JSON object; NaN, Infinity and -Infinity, as Python writes them, are text. Throws Error{invalid_argument} that
/// names `origin` and what is wrong.
[[nodiscard]] nlohmann::json parse_object(std::string_view json_text, const std::string& origin);

/// The text of a file, or of the config.json in a folder, and its path in `origin`. Throws Error{io}.
[[nodiscard]] std::string read_text(const std::filesystem::path& path, std::string& origin);

/// Of a model that also sees or hears the part that is about text, by any of the names that it has, else all.
[[nodiscard]] const nlohmann::json& text_config(const nlohmann::json& outer);

/// A member, or null.
[[nodiscard]] const nlohmann::json& member(const nlohmann::json& object, const char* key);

/// A member that is text, else `otherwise`.
[[nodiscard]] std::string text_or(const nlohmann::json& object, const char* key, std::string otherwise);

/// dtype, else torch_dtype, of a text_config or of what it lies in; bf16 if there is none, or if it is that of
/// quantised weights. Throws Error{invalid_argument} for one that smlora does not train in.
[[nodiscard]] DType dtype_of(const nlohmann::json& config, const nlohmann::json& outer, const std::string& origin);

}  // namespace smlora::models
