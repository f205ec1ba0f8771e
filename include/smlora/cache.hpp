// Looking after the cache on disk: what is in it, whether it is sound, making it smaller.
#pragma once

#include <smlora/engine.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace smlora {

struct CacheLayer {
    std::filesystem::path root;
    bool writable = false;
    bool exists = false;
};

/// One kernel entry, as its file tells.
struct CacheEntryInfo {
    std::string key;  ///< 32 hexadecimal digits
    std::filesystem::path file;
    std::string kernel;  ///< readable: family and constants
    std::string arch;
    std::string compiler;
    std::int64_t registers = 0;
    std::int64_t spill_bytes = 0;   ///< stores and loads
    std::int64_t shared_bytes = 0;  ///< static; dynamic shared memory is in `metadata`
    double compile_seconds = 0;
    std::uint64_t file_bytes = 0;
    std::string metadata;  ///< the whole JSON text of the entry
};

struct CacheStats {
    std::vector<CacheLayer> layers;
    std::uint64_t entries = 0;
    std::uint64_t bytes = 0;
    std::uint64_t limit_bytes = 0;
    // Of this process since the engine was made:
    std::uint64_t memory_hits = 0;
    std::uint64_t disk_hits = 0;
    std::uint64_t compiles = 0;
    std::uint64_t rejected = 0;  ///< entries that failed their checks and counted as misses
};

struct CacheProblem {
    std::filesystem::path file;
    std::string what;
};

/// The layers in the order in which they are consulted.
[[nodiscard]] SMLORA_API std::vector<CacheLayer> cache_layers(const Engine& engine);
[[nodiscard]] SMLORA_API CacheStats cache_stats(const Engine& engine);
/// Sound entries of all layers, newest first; unsound ones are left out.
[[nodiscard]] SMLORA_API std::vector<CacheEntryInfo> cache_list(const Engine& engine);
/// `key`: the whole key or a prefix that is unique. Throws Error{invalid_argument} when none or several match.
[[nodiscard]] SMLORA_API CacheEntryInfo cache_inspect(const Engine& engine, const std::string& key);
/// Reads every entry of every layer and says which are unsound. Removes nothing.
[[nodiscard]] SMLORA_API std::vector<CacheProblem> cache_verify(const Engine& engine);
/// Removes the kernel entries of the writable layer; returns how many.
SMLORA_API std::uint64_t cache_clear(const Engine& engine);

}  // namespace smlora
