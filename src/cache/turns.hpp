// Work that one process should do for all: who does it, and how long the others wait for that one.
#pragma once

#include "cache/folder.hpp"

#include <atomic>
#include <chrono>
#include <functional>
#include <string>

namespace smlora::util {
class Logger;
}  // namespace smlora::util

namespace smlora::cache {

/// The holder of a key's lock touches a file beside the lock file every quarter of a second, the beat, and removes it
/// when its work is done. Whoever waits goes by it: a holder without a beat was stopped or hangs, and is waited for no
/// longer; a beat that outlived its holder says that the holder died. Thread-safe.
class Turns {
 public:
    Turns(const Layer& layer, util::Logger& log);

    /// Runs `work` under the lock of `key`, or without it when what the work makes `is_there` (may be empty), when the
    /// holder has been silent for too long, or when `patience` has passed. Also without it when the holder has ended
    /// its work and the result is not there: a file server shows it late, and one after the other would wait in vain.
    /// -ENOENT, and nothing was run, when the folder of the lock is missing.
    int take(const std::string& key, std::chrono::milliseconds patience, const std::function<bool()>& is_there,
             const std::function<void()>& work);

 private:
    const Layer& layer_;
    util::Logger& log_;
    std::atomic<bool> in_vain_{false};  ///< the last wait was
};

}  // namespace smlora::cache
