// The layered store of kernel entries and tuning records: read-only layers below one writable one.
#pragma once

#include "cache/entry.hpp"
#include "cache/layer.hpp"
#include "cache/prune.hpp"
#include "cache/share.hpp"
#include "cache/use_counts.hpp"

#include <smlora/cache.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace smlora::util {
class FileSystem;
class Logger;
}  // namespace smlora::util

namespace smlora::cache {

/// What is unset comes from the environment, see location.hpp.
struct CacheOptions {
    std::optional<std::filesystem::path> root;
    std::optional<std::vector<std::filesystem::path>> layers;
    std::optional<std::uint64_t> limit_bytes;
    /// The layer that comes with the library, below all others, see location.hpp. Left out, with a line in the log, if
    /// it does not exist (info) or is unfit to be a layer (a warning).
    std::optional<std::filesystem::path> shipped = std::nullopt;
    /// The library that `shipped` comes with: those who may write to it may have written the records there. Unset: this
    /// code's own file, see location.hpp.
    std::optional<std::filesystem::path> library = std::nullopt;
    /// How long with_lock waits, unless it is told, for a holder that gives signs of life. Several times the compile
    /// time of the heaviest kernels.
    std::chrono::milliseconds lock_patience{30'000};
    /// Null: the operating system's. Must outlive the cache.
    util::FileSystem* files = nullptr;
};

struct CacheUsage {
    std::uint64_t entries = 0;  ///< kernels
    std::uint64_t bytes = 0;    ///< in kernels
    std::int64_t oldest = 0;    ///< when the kernel unused for longest was used last, in nanoseconds since 1970
    std::int64_t newest = 0;    ///< when the one used last was
    std::uint64_t records = 0;
    std::uint64_t bundles = 0;
    std::uint64_t record_bytes = 0;        ///< in records; with `bytes`, what the limit is for
    std::vector<CacheProblem> unreadable;  ///< not counted
};

/// Thread-safe and process-safe. Nothing here throws for a damaged or unusable cache except the constructor, for
/// folders that others may write to, and what looks after the cache rather than uses it, where it says so; everything
/// else is a miss and at most one warning.
class Cache {
 public:
    /// Makes no folder: that is left to the first store. Throws Error{io}, with the command that helps, for a root
    /// or layer that is not a folder, whose owner is neither this user nor root, or that its group or others may write
    /// to.
    Cache(const CacheOptions& options, util::Logger& log);
    ~Cache();

    /// The entry of `key` (32 hexadecimal digits) from the first layer that has a sound one. Without memory for it,
    /// none.
    [[nodiscard]] std::optional<KernelEntry> load(const std::string& key);

    /// Publishes into the writable layer, atomically. False, with one warning in the life of the cache, when that
    /// cannot be done (full disk, read-only root, no HOME).
    bool store(const std::string& key, const KernelEntry& entry);

    /// For a caller whose purpose is to store: throws Error{io}, with the folder and the reason, when no file can be
    /// written to the writable layer.
    void require_writable();

    /// Waits for the eviction that stores of this cache began, for callers that say what it has left.
    void finish_eviction();

    /// Whether a file of that name is in a layer; what it holds is not looked at.
    [[nodiscard]] bool contains(const std::string& key) const;

    /// Work that one process should do for all: runs `work` under the lock of `key`, or without it after `patience`
    /// (unset: lock_patience), after 1.5 s without a sign of life from its holder, or once what it makes `is_there`.
    /// `work` looks into the cache again before it compiles.
    void with_lock(const std::string& key, const std::function<void()>& work,
                   std::optional<std::chrono::milliseconds> patience = std::nullopt,
                   const std::function<bool()>& is_there = {});

    /// Where something may be recorded under `key` in `folder`: of each layer, in the order in which they are
    /// consulted, the record of `key` and then the bundle, as far as they are there.
    [[nodiscard]] std::vector<StoredFile> record_files(const std::string& folder, const std::string& key) const;

    /// The bundles of `folder` of all layers, in the order in which they are consulted.
    [[nodiscard]] std::vector<StoredFile> bundle_files(const std::string& folder) const;

    /// The keys of the records in `folder`, of all layers.
    [[nodiscard]] std::set<std::string> record_keys(const std::string& folder) const;

    /// Nothing, with at most one warning for all, when it went away or cannot be made.
    [[nodiscard]] std::optional<RecordText> read_record(const StoredFile& stored) const;

    /// Publishes a record into the writable layer, atomically. False, with one warning, when that cannot be done.
    bool store_record(const std::string& folder, const std::string& key, const std::string& text);

    /// Says that a record or bundle makes no sense, once for all, and removes it if it is in the writable layer and
    /// still the one that was read.
    void reject_record(const RecordText& record, const std::string& why);

    /// Every record and every bundle: of each layer, in the order in which they are consulted, its records by folder
    /// and key and then its bundles. Unreadable ones are passed over; `unreadable` is told of folders.
    [[nodiscard]] std::vector<RecordText> list_records(std::vector<CacheProblem>* unreadable = nullptr) const;

    /// Removes the records and bundles of the writable layer; returns how many. `problems` is told what cannot be read
    /// or removed; without it that is Error{io}, with the rest removed.
    std::uint64_t clear_records(std::vector<CacheProblem>* problems = nullptr);

    [[nodiscard]] std::vector<CacheLayer> layers() const;
    /// The same with those who may have written to them.
    [[nodiscard]] const std::vector<Layer>& folders() const;
    /// Through which every file of the cache is read and written.
    [[nodiscard]] util::FileSystem& files() const noexcept;
    [[nodiscard]] std::uint64_t limit_bytes() const noexcept;
    [[nodiscard]] std::uint64_t rejected() const noexcept;  ///< unsound entries met since construction
    /// What the writable layer holds, by the names and sizes of its files.
    [[nodiscard]] CacheUsage usage() const;
    /// Sound entries of all layers, newest first, whose keys begin with `prefix`. `unreadable` is told of folders that
    /// cannot be read.
    [[nodiscard]] std::vector<CacheEntryInfo> list(const std::string& prefix = {},
                                                   std::vector<CacheProblem>* unreadable = nullptr) const;
    /// The entry whose key is or begins with `prefix`, from the first layer that has it. Throws
    /// Error{invalid_argument} when no key or more than one does, Error{io} when none does and a folder cannot be read.
    [[nodiscard]] CacheEntryInfo inspect(const std::string& prefix) const;
    /// The unsound entries of all layers, and what cannot be read. `checked` is set to what was looked at.
    [[nodiscard]] std::vector<UnsoundFile> verify(Checked* checked = nullptr) const;
    /// Removes a file of the writable layer. Nothing when it has been replaced since it was looked at and stays; else
    /// zero or a negated errno.
    std::optional<int> remove(const StoredFile& stored);
    /// Removes kernels of the writable layer, see prune.hpp.
    [[nodiscard]] PruneReport prune(const PruneOptions& options);

    /// Lets others read the writable layer, which then is a layer that they may name. Throws Error{io} without one.
    ShareReport share(Readers readers);
    /// Seconds since a time of CacheUsage, by the file server's clock, which a write to the layer tells.
    [[nodiscard]] double age(std::int64_t used) const;
    /// What processes did with the writable layer, as far as they have ended, see use_counts.hpp.
    [[nodiscard]] UseCounts use_counts() const;
    /// Adds to it with the next write_use_counts().
    void count_use(std::uint64_t hits, std::uint64_t misses);
    /// Writes what was counted and evicted since the last time, if it can. So does the destructor.
    void write_use_counts();
    /// Begins to count anew. Throws Error{io} when that cannot be done.
    void zero_use_counts();
    /// Removes the kernels of the writable layer; returns how many. `problems` as with clear_records().
    std::uint64_t clear(std::vector<CacheProblem>* problems = nullptr);

 private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace smlora::cache
