// The layered store of kernel entries: read-only layers below one writable one.
#pragma once

#include "cache/entry.hpp"

#include <smlora/cache.hpp>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace smlora::util {
class Logger;
}

namespace smlora::cache {

struct CacheOptions {
    std::optional<std::filesystem::path> root;
    std::optional<std::vector<std::filesystem::path>> layers;
    std::optional<std::uint64_t> limit_bytes;
};

/// Thread-safe and process-safe. Nothing here throws for a damaged or unusable cache except the constructor, and that
/// only for folders that others may write to; everything else is a miss and at most one warning.
class Cache {
   public:
    Cache(const CacheOptions& options, util::Logger& log);
    ~Cache();

    /// The entry of `key` (32 hexadecimal digits) from the first layer that has a sound one.
    [[nodiscard]] std::optional<KernelEntry> load(const std::string& key);

    /// Publishes into the writable layer, atomically. False, with one warning in the life of the cache, when that
    /// cannot be done (full disk, read-only root, no HOME).
    bool store(const std::string& key, const KernelEntry& entry);

    /// Work that one process of a node should do for all: takes the lock of `key` if it can be had within a bound and
    /// runs `work`; without the lock it runs it all the same. `work` looks into the cache again before it compiles.
    void with_lock(const std::string& key, const std::function<void()>& work);

    [[nodiscard]] std::vector<CacheLayer> layers() const;
    [[nodiscard]] std::uint64_t limit_bytes() const noexcept;
    [[nodiscard]] std::uint64_t rejected() const noexcept;  ///< unsound entries met since construction
    [[nodiscard]] std::vector<CacheEntryInfo> list() const;
    [[nodiscard]] std::vector<CacheProblem> verify() const;
    std::uint64_t clear();

   private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace smlora::cache
