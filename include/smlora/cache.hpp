// Looking after the cache on disk: what is in it, whether it is sound, making it smaller.
#pragma once

#include <smlora/engine.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace smlora {

/// One folder of the cache.
struct CacheLayer {
    std::filesystem::path root;  ///< absolute
    bool writable = false;       ///< new kernels and records go there
    bool exists = false;         ///< a layer that does not exist is used once it does
};

/// One kernel entry, as its file describes it.
struct CacheEntryInfo {
    std::string key;                ///< 32 hexadecimal digits
    std::filesystem::path file;     ///< where it is
    std::string kernel;             ///< readable: family and constants
    std::string arch;               ///< "sm_90a"
    std::string compiler;           ///< NVRTC's version with its build number
    std::int64_t registers = 0;     ///< of a thread
    std::int64_t spill_bytes = 0;   ///< stores and loads
    std::int64_t shared_bytes = 0;  ///< static; dynamic shared memory is in `metadata`
    double compile_seconds = 0;     ///< that NVRTC took
    std::uint64_t file_bytes = 0;   ///< size of the file
    std::string metadata;           ///< the whole JSON text of the entry
};

/// A file or folder of the cache that something is wrong with.
struct CacheProblem {
    std::filesystem::path file;  ///< a kernel, record or bundle that is unsound; a folder that cannot be read
    std::string what;            ///< what is wrong with it
};

/// What is in the cache, and what this engine did with it.
struct CacheStats {
    std::vector<CacheLayer> layers;        ///< in the order in which they are consulted
    std::uint64_t entries = 0;             ///< kernels in the writable layer
    std::uint64_t bytes = 0;               ///< their size
    std::uint64_t limit_bytes = 0;         ///< of kernels and records; 0: none
    std::uint64_t memory_hits = 0;         ///< kernels found loaded, since the engine was made
    std::uint64_t disk_hits = 0;           ///< kernels found in a layer, likewise
    std::uint64_t compiles = 0;            ///< kernels compiled, likewise
    std::uint64_t rejected = 0;            ///< entries that failed their checks and counted as misses, likewise
    std::vector<CacheProblem> unreadable;  ///< of the writable layer, and therefore not counted
};

/// The layers in the order in which they are consulted.
[[nodiscard]] SMLORA_API std::vector<CacheLayer> cache_layers(const Engine& engine);
/// Reads the writable layer to count.
[[nodiscard]] SMLORA_API CacheStats cache_stats(const Engine& engine);
/// Sound entries of all layers, newest first; unsound ones are left out. Throws Error{io} for a folder that cannot be
/// read.
[[nodiscard]] SMLORA_API std::vector<CacheEntryInfo> cache_list(const Engine& engine);
/// `key`: the whole key or a prefix that is unique. Throws Error{invalid_argument} when none or several match.
[[nodiscard]] SMLORA_API CacheEntryInfo cache_inspect(const Engine& engine, const std::string& key);
/// Reads every entry of every layer and says which are unsound, and what cannot be read. Removes nothing.
[[nodiscard]] SMLORA_API std::vector<CacheProblem> cache_verify(const Engine& engine);
/// Removes the kernel entries of the writable layer; returns how many. Throws Error{io}, with the rest removed, for
/// what cannot be read or removed.
SMLORA_API std::uint64_t cache_clear(const Engine& engine);
/// Adds what the engine found, compiled and evicted since the last time to the counts that `smlora-tune cache stats`
/// shows. Destroying the engine does so, too: call it where a process ends without.
SMLORA_API void cache_count_use(const Engine& engine);

}  // namespace smlora
