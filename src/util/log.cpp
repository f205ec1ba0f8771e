#include "util/log.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <string_view>

namespace smlora::util {
namespace {

constexpr std::array by_severity{LogLevel::debug, LogLevel::info, LogLevel::notice, LogLevel::warning};

/// Not the number, which the C ABI keeps for what was there before `notice`.
std::ptrdiff_t severity(LogLevel level) {
    return std::find(by_severity.begin(), by_severity.end(), level) - by_severity.begin();
}

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
    // There is nobody left to tell when stderr itself fails.
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

Logger::Logger(LogSink sink) : sink_(std::move(sink)), threshold_(LogLevel::debug) {
    if (sink_) return;
    sink_ = write_to_stderr;
    threshold_ = LogLevel::notice;
    const char* wanted = std::getenv("SMLORA_LOG");
    if (wanted == nullptr || *wanted == '\0') return;
    for (const LogLevel level : by_severity) {
        if (wanted == name_of(level)) {
            threshold_ = level;
            return;
        }
    }
    warning("SMLORA_LOG: expected debug, info, notice or warning, got \"" + std::string(wanted) + "\"; taking notice");
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
    if (severity(level) < severity(threshold_)) return;
    const std::lock_guard lock(mutex_);
    try {
        sink_(level, line);
    } catch (...) {
        // The caller's sink failed; see the declaration.
    }
}

}  // namespace smlora::util
