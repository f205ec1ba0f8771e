// A thread that belongs to an object.
#pragma once

#include "util/process.hpp"

#include <system_error>
#include <thread>
#include <utility>

namespace smlora::util {

/// Its end is waited for, but not in a forked child, which has the object and not the thread.
class OwnThread {
 public:
    OwnThread() = default;
    ~OwnThread() { finish(); }
    OwnThread(const OwnThread&) = delete;
    OwnThread& operator=(const OwnThread&) = delete;

    /// Waits for what was begun before. False if the system can start no more threads.
    template <class Work>
    [[nodiscard]] bool begin(Work work) {
        finish();
        try {
            thread_ = std::thread(std::move(work));
            return true;
        } catch (const std::system_error&) {
            return false;
        }
    }

    /// Whether there is one that finish() would wait for.
    [[nodiscard]] bool is_there() const { return thread_.joinable() && origin_.is_this_process(); }

    void finish() {
        if (is_there()) {
            thread_.join();
        } else if (thread_.joinable()) {
            thread_.detach();
        }
    }

 private:
    Origin origin_;
    std::thread thread_;
};

}  // namespace smlora::util
