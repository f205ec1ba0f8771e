// Keeping the writable layer small: leftovers of dead processes go, and the entries unused for longest.
#pragma once

#include "util/file_system.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>

namespace smlora::cache {

/// Recency is written at most this often, so that a hit costs no write.
inline constexpr std::chrono::hours touch_interval{1};

/// A temporary file older than this has no writer any more: writing an entry takes milliseconds.
inline constexpr std::chrono::hours temporary_lifetime{1};

/// Marks an entry that was just read as used now, unless that was done within the hour. An explicit touch, as the time
/// of access that the system keeps is switched off, or kept for a day, on most machines.
void mark_used(util::FileSystem& files, const std::filesystem::path& file, const util::FileStatus& status);

/// Whether no process has done the upkeep within the hour.
[[nodiscard]] bool upkeep_is_due(util::FileSystem& files, const std::filesystem::path& root);

struct UpkeepReport {
    std::uint64_t swept = 0;    ///< temporary files removed
    std::uint64_t evicted = 0;  ///< entries removed
    std::uint64_t bytes = 0;    ///< in the entries that are left
};

/// Sweeps temporary files; if the entries hold more than `limit` bytes, removes those unused for longest until they
/// hold nine tenths of it, so that the next few entries need no eviction again. Several processes may do it at once.
/// A process that reads an entry while it is removed has it still; one that comes later compiles it again.
UpkeepReport upkeep(util::FileSystem& files, const std::filesystem::path& root, std::uint64_t limit);

}  // namespace smlora::cache
