// One logger an engine: lines at or above a level go to the user's sink or to stderr.
#pragma once

#include <smlora/engine.hpp>

#include <mutex>
#include <string>
#include <vector>

namespace smlora::util {

class Logger {
 public:
    /// With a sink every line goes there, whatever its level. `sink` empty: stderr, at the level that SMLORA_LOG names
    /// (debug, info, notice, warning), notice if unset.
    explicit Logger(LogSink sink = {});

    void debug(const std::string& line) { write(LogLevel::debug, line); }
    void info(const std::string& line) { write(LogLevel::info, line); }
    void notice(const std::string& line) { write(LogLevel::notice, line); }
    void warning(const std::string& line) { write(LogLevel::warning, line); }
    /// A warning that is given once in the life of this logger for each `topic`.
    void warning_once(const std::string& topic, const std::string& line);

 private:
    /// Never throws for a sink that throws: what is logged must not change what is computed.
    void write(LogLevel level, const std::string& line);

    LogSink sink_;
    LogLevel threshold_;
    std::mutex mutex_;
    std::vector<std::string> topics_;
};

}  // namespace smlora::util
