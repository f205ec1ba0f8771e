// A fixed pool of threads and a parallel loop over it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace smlora::util {

/// Cores that this process may run on (its affinity mask).
[[nodiscard]] int available_cores();

/// Runs loops; several callers may use one pool at once, each waits for its own loop only. Threads start on first use.
class ThreadPool {
 public:
    /// threads <= 0: available_cores().
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    [[nodiscard]] int threads() const noexcept { return threads_; }

    /// Calls body(i) for every i in [0, count), in no particular order, on the pool's threads and the caller's. The
    /// first exception is rethrown here after all running bodies have ended; the remaining indices are skipped.
    void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& body);

 private:
    struct Loop;
    void work();

    int threads_;
    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<Loop*> loops_;
    bool stopping_ = false;
};

}  // namespace smlora::util
