// The time as the file system has it that the cache lies on.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace smlora::cache {

/// Ages of files go by the file server's clock, from which this machine's may differ by hours, and which this machine's
/// administrator may set at any time. So the time is taken from a file that was just written, and goes on from there
/// with a clock that nobody sets. Thread-safe.
class FileClock {
 public:
    /// Nanoseconds since 1970: this machine's until learn() was called.
    [[nodiscard]] std::int64_t now() const;
    [[nodiscard]] bool is_known() const { return ahead_of_steady_ != unknown; }
    /// A file that was just written has this time.
    void learn(std::int64_t written_at);

 private:
    static constexpr std::int64_t unknown = INT64_MIN;
    std::atomic<std::int64_t> ahead_of_steady_{unknown};
};

/// Whether two times are further apart than `interval`, whichever is the later: a time from the future is as wrong as
/// one that is too old.
[[nodiscard]] constexpr bool far_apart(std::int64_t a, std::int64_t b, std::chrono::nanoseconds interval) {
    return (a < b ? b - a : a - b) > interval.count();
}

}  // namespace smlora::cache
