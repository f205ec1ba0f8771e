// Where the cache is and how large it may become: options first, then the environment, then defaults.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace smlora::cache {

/// The file that this code was loaded from: the shared library, or a program that has it linked in. Empty when it is
/// gone.
[[nodiscard]] std::filesystem::path own_file();

/// SMLORA_CACHE_DIR.
[[nodiscard]] std::optional<std::filesystem::path> named_root();

/// Where none is named: $XDG_CACHE_HOME/smlora, else $HOME/.cache/smlora; nothing without either. Never a shared
/// temporary folder: a name that others can guess is a name that others can take first.
[[nodiscard]] std::optional<std::filesystem::path> default_root();

/// SMLORA_CACHE_LAYERS, separated by ':'.
[[nodiscard]] std::vector<std::filesystem::path> default_layers();

/// Users whose layers are trusted, as those of this user and root are.
struct Publishers {
    std::set<std::uint32_t> users;  ///< by id
    bool owners_of_layers = false;  ///< the owner of each named layer, too
};

/// SMLORA_CACHE_TRUST: user ids separated by ',', or the word "layers". Throws Error{invalid_argument} for anything
/// else.
[[nodiscard]] Publishers trusted_publishers();

/// The layer that comes with the library: `named`, else share/smlora/cache of the prefix that this code was installed
/// into, else the source tree's cache/ while it runs from the build tree. Nothing when there is none, `named` is empty
/// or SMLORA_SHIPPED_CACHE is 0.
[[nodiscard]] std::optional<std::filesystem::path> shipped_layer(
    const std::optional<std::filesystem::path>& named = std::nullopt);

inline constexpr std::uint64_t default_limit_bytes = std::uint64_t{2} << 30;

/// SMLORA_CACHE_LIMIT, else 2 GiB. `complaint` is set when the variable is no size and was not followed.
[[nodiscard]] std::uint64_t default_limit(std::string& complaint);

}  // namespace smlora::cache
