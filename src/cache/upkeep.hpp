// Keeping the writable layer small: leftovers of dead processes go, and the entries unused for longest.
#pragma once

#include "cache/byte_count.hpp"
#include "cache/file_clock.hpp"
#include "cache/layer.hpp"
#include "util/lock.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

namespace smlora::cache {

/// The layer is swept this often, whatever it holds.
inline constexpr std::chrono::hours upkeep_interval{1};

/// A temporary file older than this has no writer any more: writing an entry takes milliseconds.
inline constexpr std::chrono::hours temporary_lifetime{1};

/// Whether no process has begun the upkeep within `interval`. A time from the future counts as none.
[[nodiscard]] bool upkeep_is_older_than(std::chrono::nanoseconds interval, const Layer& layer, const FileClock& clock);

struct UpkeepReport {
    std::uint64_t swept = 0;    ///< temporary files removed
    std::uint64_t evicted = 0;  ///< kernels and records removed
    std::uint64_t bytes = 0;    ///< in the kernels and records that are left, of those looked at
};

/// One time of upkeep. Sweeps temporary files; if kernels and records hold more than `limit` bytes (0: no limit),
/// removes the kernels unused for longest, and then the records written longest ago, until nine tenths of it are left,
/// so that the next few entries need no eviction again. One that has to finish early looks at some of the folders,
/// others each time, and takes from them their share of what is to go. What is younger than the upkeep stays. A process
/// that reads an entry while it is removed has it still; one that comes later compiles it again.
class Upkeep {
 public:
    /// Takes the layer's lock for upkeep if it is free. `kept` is not evicted.
    Upkeep(const Layer& layer, std::uint64_t limit, FileClock& clock, std::filesystem::path kept);

    /// False while another process is at it: two at once would each take the share of both. Without locks, and with a
    /// holder that has done nothing for two hours, it is done all the same: what another one removed counts as freed.
    [[nodiscard]] bool is_ours() const;

    /// Goes on where the last call stopped; true when all is done. `stop` is asked before each file.
    bool run(const std::function<bool()>& stop);

    /// Looks at no more, goes on with what was looked at, and counts what was freed, also when stopped.
    void finish_early(const std::function<bool()>& stop);

    [[nodiscard]] const UpkeepReport& report() const { return report_; }

 private:
    void begin();
    void judge();
    /// Whether the file is gone, by us or by somebody else. One that was used or replaced meanwhile stays.
    bool free(const StoredFile& file);
    void count();

    const Layer layer_;
    const std::uint64_t limit_;
    FileClock& clock_;
    const std::filesystem::path kept_;
    const util::ByteLock lock_;

    enum class Stage { beginning, looking, sweeping, mending, evicting, done } stage_ = Stage::beginning;
    Walk walk_;
    std::int64_t began_ = 0;            ///< by the file server's clock
    std::uint64_t count_at_start_ = 0;  ///< what others add to it meanwhile may not be in what was seen
    bool whole_ = true;                 ///< all was looked at
    std::uint64_t target_ = 0;          ///< what may be left of the bytes that were looked at
    std::uint64_t freed_ = 0;           ///< by this process
    std::vector<StoredFile> leftovers_;
    std::vector<StoredFile> from_future_;
    std::vector<StoredFile> victims_;  ///< the first to go at the end
    UpkeepReport report_;
};

}  // namespace smlora::cache
