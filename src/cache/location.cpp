#include "cache/location.hpp"

#include "util/environment.hpp"

#include <smlora/error.hpp>

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

namespace smlora::cache {
namespace {

/// A relative path in XDG_CACHE_HOME is to be ignored (XDG Base Directory Specification), and one in HOME is a mistake.
std::optional<std::filesystem::path> absolute_from(const char* variable) {
    const auto value = util::environment(variable);
    if (!value || value->front() != '/') return std::nullopt;
    return *value;
}

}  // namespace

std::filesystem::path own_file() {
    // Of a program the loader knows only what it was called by, which may be a name without a path.
    ::Dl_info self{};
    const bool known = ::dladdr(reinterpret_cast<const void*>(&own_file), &self) != 0 && self.dli_fname != nullptr;
    const bool absolute = known && *self.dli_fname == '/';
    std::error_code error;
    return std::filesystem::canonical(absolute ? self.dli_fname : "/proc/self/exe", error);
}

std::optional<std::filesystem::path> named_root() {
    if (const auto named = util::environment("SMLORA_CACHE_DIR")) return *named;
    return std::nullopt;
}

std::optional<std::filesystem::path> default_root() {
    if (const auto caches = absolute_from("XDG_CACHE_HOME")) return *caches / "smlora";
    if (const auto home = absolute_from("HOME")) return *home / ".cache" / "smlora";
    return std::nullopt;
}

std::vector<std::filesystem::path> default_layers() {
    std::vector<std::filesystem::path> layers;
    const std::string value = util::environment("SMLORA_CACHE_LAYERS").value_or("");
    std::string_view rest = value;
    while (!rest.empty()) {
        const std::string_view layer = rest.substr(0, rest.find(':'));
        if (!layer.empty()) layers.emplace_back(layer);
        rest.remove_prefix(layer.size() == rest.size() ? rest.size() : layer.size() + 1);
    }
    return layers;
}

Publishers trusted_publishers() {
    Publishers publishers;
    const std::string value = util::environment("SMLORA_CACHE_TRUST").value_or("");
    std::string_view rest = value;
    while (!rest.empty()) {
        const std::string_view word = rest.substr(0, rest.find(','));
        std::uint32_t user = 0;
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), user);
        if (word == "layers") {
            publishers.owners_of_layers = true;
        } else if (error == std::errc{} && end == word.data() + word.size()) {
            publishers.users.insert(user);
        } else {
            throw Error(
                ErrorCode::invalid_argument,
                fmt::format("SMLORA_CACHE_TRUST: expected user ids separated by ',' or the word layers, got \"{}\"",
                            value));
        }
        rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    }
    return publishers;
}

std::optional<std::filesystem::path> shipped_layer(const std::optional<std::filesystem::path>& named) {
    const std::string used = util::environment("SMLORA_SHIPPED_CACHE").value_or("1");
    if (used == "0") return std::nullopt;
    if (used != "1") {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("SMLORA_SHIPPED_CACHE: expected 0 or 1, got \"{}\"", used));
    }
    if (named) return named->empty() ? std::nullopt : named;
    std::error_code error;
    const std::filesystem::path file = own_file();
    for (const char* from_here : {SMLORA_LAYER_FROM_LIBRARY, SMLORA_LAYER_FROM_PROGRAM}) {
        const std::filesystem::path installed = (file.parent_path() / from_here).lexically_normal();
        if (std::filesystem::is_directory(installed, error)) return installed;
    }
    const std::filesystem::path from_build = file.lexically_relative(SMLORA_BUILD_TREE);
    const bool in_build_tree = !from_build.empty() && *from_build.begin() != "..";
    if (in_build_tree && std::filesystem::is_directory(SMLORA_SOURCE_LAYER, error)) return SMLORA_SOURCE_LAYER;
    return std::nullopt;
}

std::uint64_t default_limit(std::string& complaint) {
    const auto value = util::environment("SMLORA_CACHE_LIMIT");
    if (!value) return default_limit_bytes;
    const auto bytes = util::parse_size(*value);
    if (!bytes) {
        complaint = fmt::format(
            "SMLORA_CACHE_LIMIT: expected a number of bytes, or one with the suffix K, M or G, got \"{}\"; using 2G",
            *value);
    }
    return bytes.value_or(default_limit_bytes);
}

}  // namespace smlora::cache
