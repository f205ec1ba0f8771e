// When a layer's upkeep is done, and by whom.
#pragma once

#include "cache/file_clock.hpp"
#include "cache/upkeep.hpp"
#include "util/own_thread.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>

namespace smlora::util {
class Logger;
}  // namespace smlora::util

namespace smlora::cache {

/// Counts what is stored, and has the upkeep done once an hour and whenever the count exceeds the limit. A store spends
/// some ten milliseconds on it; what is not done by then goes on in a thread. Thread-safe.
class Keeper {
 public:
    /// Adds to `evictions` how many kernels and records it has evicted.
    Keeper(const Layer& layer, std::uint64_t limit, FileClock& clock, util::Logger& log,
           std::atomic<std::uint64_t>& evictions);
    /// Gives an upkeep that is going on a second; another process begins anew what is not done by then.
    ~Keeper();
    Keeper(const Keeper&) = delete;
    Keeper& operator=(const Keeper&) = delete;

    /// Marks an entry that was just read as used now. An explicit touch, as the time of access that the system keeps is
    /// switched off, or kept for a day, on most machines. An error is none: the entry was read.
    void used(const std::filesystem::path& file, const util::FileStatus& status);
    /// Before a store: lets the eviction that is going on get ahead again.
    void wait_for_room() const;
    /// After a store, of a kernel or record.
    void stored(const std::filesystem::path& file, std::uint64_t bytes);
    /// After kernels and records of so many bytes were removed.
    void removed(std::uint64_t bytes);
    /// Waits for the upkeep that is going on in this process.
    void finish();
    /// The file server's time, which a write tells if it is not known yet.
    [[nodiscard]] std::int64_t now();

 private:
    /// Whether entries may be evicted soon, so that it matters which were used.
    [[nodiscard]] bool is_filling();
    [[nodiscard]] bool is_due(std::optional<std::uint64_t> count) const;
    void report(const Upkeep& done) const;

    const Layer& layer_;
    const std::uint64_t limit_;
    FileClock& clock_;
    util::Logger& log_;
    std::atomic<std::uint64_t>& evictions_;
    std::atomic<std::uint64_t> uncounted_bytes_{0};  ///< stored since the last upkeep where no count can be kept
    std::atomic<bool> ahead_{false};                 ///< the last store left more than the limit
    std::atomic<bool> filling_{true};
    std::atomic<std::int64_t> looked_at_count_{INT64_MIN};  ///< when, by the clock that nobody sets, in nanoseconds
    std::mutex mutex_;
    std::atomic<bool> ending_{false};  ///< no time to look at more
    std::atomic<bool> stop_{false};
    std::atomic<bool> running_{false};  ///< in the thread
    util::OwnThread thread_;            // guarded by mutex_
};

}  // namespace smlora::cache
