// One line that shows how far a long command has come.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

namespace smlora::tool {

struct ProgressState {
    std::size_t done = 0;
    std::size_t total = 0;
    double seconds = 0;    ///< since the work began
    std::string activity;  ///< what is being worked on, or a word on what was
};

/// "[12/48] 3.1/s, 12 s left, grouped_product E=128 ..", cut to `columns`. No rate and no time left until something is
/// done.
[[nodiscard]] std::string progress_text(const ProgressState& state, int columns);

/// Shows progress_text on a stream: rewritten in place, at most ten times a second, on a terminal; as a line of its
/// own every few seconds elsewhere. Thread-safe: lines of the log come from threads that compile.
class ProgressLine {
 public:
    using Clock = std::function<std::chrono::steady_clock::time_point()>;

    explicit ProgressLine(std::FILE* stream);
    ProgressLine(std::FILE* stream, bool in_place, Clock clock);
    ~ProgressLine();
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;

    void update(std::size_t done, std::size_t total, std::string_view activity);

    /// The same for something that may take long from here on: shown at once on a terminal.
    void announce(std::size_t done, std::size_t total, std::string_view activity);

    /// Prints a whole line above the progress line.
    void print(std::string_view line);

    /// Takes the line off the terminal.
    void finish();

 private:
    // Both with the lock held.
    void show(std::size_t done, std::size_t total, std::string_view activity);
    void erase();

    std::FILE* stream_;
    bool in_place_;
    Clock clock_;
    std::chrono::steady_clock::time_point start_;
    std::mutex mutex_;  // of the stream, and of what follows
    std::chrono::steady_clock::time_point last_;
    bool shown_ = false;
};

}  // namespace smlora::tool
