#include "smlora_tune/progress.hpp"

#include "smlora_tune/output.hpp"
#include "smlora_tune/terminal.hpp"
#include "smlora_tune/units.hpp"

#include <fmt/format.h>

#include <utility>

namespace smlora::tool {
namespace {

using std::chrono::steady_clock;

// Ten a second look alive and cost nothing; a log file should gain a line only now and then.
constexpr std::chrono::milliseconds in_place_interval{100};
constexpr std::chrono::milliseconds line_interval{5000};

}  // namespace

std::string progress_text(const ProgressState& state, int columns) {
    std::string text = fmt::format("[{}/{}]", state.done, state.total);
    if (state.done > 0 && state.seconds > 0) {
        const double rate = static_cast<double>(state.done) / state.seconds;
        text += fmt::format(" {:.1f}/s", rate);
        if (state.done < state.total) {
            text += fmt::format(", {} left", duration_text(static_cast<double>(state.total - state.done) / rate));
        }
    }
    if (!state.activity.empty()) text += fmt::format("{} {}", state.done > 0 ? "," : "", state.activity);
    const auto width = static_cast<std::size_t>(columns < 20 ? 20 : columns);
    if (text.size() > width) text = text.substr(0, width - 3) + "...";
    return text;
}

ProgressLine::ProgressLine(std::FILE* stream) : ProgressLine(stream, is_terminal(stream), &steady_clock::now) {}

ProgressLine::ProgressLine(std::FILE* stream, bool in_place, Clock clock)
    : stream_(stream), in_place_(in_place), clock_(std::move(clock)), start_(clock_()), last_(start_) {}

ProgressLine::~ProgressLine() { finish(); }

void ProgressLine::update(std::size_t done, std::size_t total, std::string_view activity) {
    const std::lock_guard lock(mutex_);
    const auto interval = in_place_ ? in_place_interval : line_interval;
    const bool first = in_place_ && !shown_;
    if (first || clock_() - last_ >= interval) show(done, total, activity);
}

void ProgressLine::announce(std::size_t done, std::size_t total, std::string_view activity) {
    const std::lock_guard lock(mutex_);
    if (in_place_ || clock_() - last_ >= line_interval) show(done, total, activity);
}

void ProgressLine::show(std::size_t done, std::size_t total, std::string_view activity) {
    last_ = clock_();
    const std::chrono::duration<double> elapsed = last_ - start_;
    // The last column stays free: writing it would wrap the line on some terminals.
    const int columns = in_place_ ? terminal_columns(stream_) - 1 : 160;
    const std::string text = progress_text({done, total, elapsed.count(), std::string(activity)}, columns);
    erase();
    write_remark(stream_, text + (in_place_ ? "" : "\n"));
    shown_ = in_place_;
}

void ProgressLine::print(std::string_view line) {
    const std::lock_guard lock(mutex_);
    erase();
    write_remark(stream_, fmt::format("{}\n", line));
}

void ProgressLine::finish() {
    const std::lock_guard lock(mutex_);
    erase();
}

void ProgressLine::erase() {
    if (shown_) write_remark(stream_, "\r\x1b[K");
    shown_ = false;
}

}  // namespace smlora::tool
