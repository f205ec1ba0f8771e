// What a cache is made of, and what those parts of it share that use it and that look after it.
#pragma once

#include "cache/cache.hpp"
#include "cache/file_clock.hpp"
#include "cache/keeper.hpp"
#include "cache/location.hpp"
#include "cache/turns.hpp"
#include "util/process.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

namespace smlora::cache {

inline constexpr const char* no_root = "cache: none of SMLORA_CACHE_DIR, XDG_CACHE_HOME and HOME names a folder";

/// What went wrong when a file was to be written; nothing when it is there.
struct Writing {
    std::string why = {};
    std::optional<CacheProblem> folder = std::nullopt;  ///< that was refused
};

struct Cache::State {
    State(const CacheOptions& options, util::Logger& log_);

    /// True when the folder exists. Throws for one that is not fit to be a layer.
    bool check_folder(const std::filesystem::path& folder, FolderUse use, const Writers& trusted = {}) const;
    /// As the writable layer: a folder that nobody named stops nothing, and without it all is kept in memory.
    void use_if_fit(const std::filesystem::path& folder);
    /// One that the user named.
    void add_layer(const std::filesystem::path& folder, const Publishers& publishers);
    void add_shipped(const CacheOptions& options);
    [[nodiscard]] bool has(const std::filesystem::path& folder) const;
    /// The writable layer.
    [[nodiscard]] const Layer& own() const { return layers.front(); }
    /// Makes the root and its version folder.
    Writing make_root();
    /// Tags the root as a cache if it holds nothing else: a tag in, say, a home folder that somebody named as the root
    /// would take all of it out of the backups.
    void tag(const Folder& root) const;
    /// Writes a file of the writable layer.
    Writing write(const std::filesystem::path& target, const std::string& bytes);
    void append(const Layer& layer, std::vector<StoredFile> found, std::vector<StoredFile>& all) const;
    std::optional<RecordText> read(const StoredFile& stored) const;
    /// Removes what is in `lists` of the writable layer, see Cache::clear_records.
    std::uint64_t clear(Walk::Over over, std::initializer_list<std::vector<StoredFile> Contents::*> lists,
                        std::vector<CacheProblem>* problems);
    /// A file of the writable layer, see layer.hpp.
    std::optional<int> remove_if_same(const StoredFile& stored);
    bool refuse_record(const std::string& what);
    std::string unwritable_text(const std::string& why) const;
    /// Of a folder that is refused, once.
    void warn_of(const CacheProblem& folder) const;
    void warn_of_store(const std::string& what);
    util::FileSystem& files;
    util::Logger& log;
    std::optional<std::filesystem::path> writable;
    std::string why_not_writable = no_root;
    bool told_of_no_root = false;
    std::vector<Layer> layers;  ///< in the order in which they are consulted, the writable one first
    std::uint64_t limit = default_limit_bytes;
    std::chrono::milliseconds lock_patience;
    std::atomic<std::uint64_t> rejected{0};
    std::atomic<bool> warned_of_store{false};
    /// The last store failed: no process would find what another compiles under a lock, so none waits for it.
    std::atomic<bool> store_fails{false};
    std::atomic<std::uint64_t> hits{0};
    std::atomic<std::uint64_t> misses{0};
    std::atomic<std::uint64_t> evictions{0};
    const util::Origin origin;
    FileClock clock;
    std::optional<Keeper> keeper;  ///< of the writable layer
    std::optional<Turns> turns;    ///< likewise
};

}  // namespace smlora::cache
