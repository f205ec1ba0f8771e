#include "smlora_tune/progress.hpp"

#include "smlora_tune/terminal.hpp"
#include "smlora_tune/units.hpp"

#include <fmt/format.h>

#include <utility>

namespace smlora::tool {
namespace {

using std::chrono::steady_clock;

// Ten a second look alive and cost nothing; a log file should gain a line only now and then.
constexpr auto in_place_interval = std::chrono::milliseconds(100);
constexpr auto line_interval = std::chrono::seconds(5);

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
    const auto now = clock_();
    const bool due = in_place_ ? !shown_ || now - last_ >= in_place_interval : now - last_ >= line_interval;
    if (!due && done < total) return;
    // A log needs no last line: what was done is said by the caller at the end.
    if (!in_place_ && !due) return;
    const std::chrono::duration<double> elapsed = now - start_;
    // The last column stays free: writing it would wrap the line on some terminals.
    const int columns = in_place_ ? terminal_columns(stream_) - 1 : 160;
    const std::string text = progress_text({done, total, elapsed.count(), std::string(activity)}, columns);
    erase();
    fmt::print(stream_, "{}{}", text, in_place_ ? "" : "\n");
    std::fflush(stream_);
    shown_ = in_place_;
    last_ = now;
}

void ProgressLine::print(std::string_view line) {
    erase();
    fmt::print(stream_, "{}\n", line);
    std::fflush(stream_);
}

void ProgressLine::finish() {
    erase();
    std::fflush(stream_);
}

void ProgressLine::erase() {
    if (shown_) fmt::print(stream_, "\r\x1b[K");
    shown_ = false;
}

}  // namespace smlora::tool
