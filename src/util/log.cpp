#include "util/log.hpp"

#include "util/size_limit.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

namespace smlora::util {
namespace {

constexpr std::array levels{LogLevel::debug, LogLevel::info, LogLevel::notice, LogLevel::warning};

std::string_view name_of(LogLevel level) {
    switch (level) {
        case LogLevel::debug:
            return "debug";
        case LogLevel::info:
            return "info";
        case LogLevel::notice:
            return "notice";
        case LogLevel::warning:
            break;
    }
    return "warning";
}

/// One write(2) a line, so that the lines of several processes on one terminal do not mix.
void write_to_stderr(LogLevel level, std::string_view line) {
    std::string text = "smlora: ";
    text.append(name_of(level)).append(": ").append(line).append("\n");
    // A failure of stderr itself cannot be reported anywhere.
    [[maybe_unused]] const ssize_t written = write_within_limit(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

Logger::Logger(LogSink sink) : sink_(std::move(sink)), threshold_(LogLevel::debug) {
    if (sink_) return;
    sink_ = write_to_stderr;
    threshold_ = LogLevel::notice;
    const char* wanted = std::getenv("SMLORA_LOG");
    if (wanted == nullptr || *wanted == '\0') return;
    for (const LogLevel level : levels) {
        if (wanted == name_of(level)) {
            threshold_ = level;
            return;
        }
    }
    warning("SMLORA_LOG: expected debug, info, notice or warning, got \"" + std::string(wanted) + "\"; using notice");
}

void Logger::warning_once(const std::string& topic, const std::string& line) {
    {
        const std::lock_guard lock(mutex_);
        if (std::find(topics_.begin(), topics_.end(), topic) != topics_.end()) return;
        topics_.push_back(topic);
    }
    warning(line);
}

void Logger::write(LogLevel level, const std::string& line) {
    if (level < threshold_) return;
    const std::lock_guard lock(mutex_);
    try {
        sink_(level, line);
    } catch (...) {
        // The caller's sink failed; see the declaration.
    }
}

}  // namespace smlora::util
