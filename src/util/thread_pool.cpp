#include "util/thread_pool.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <system_error>

namespace smlora::util {

int available_cores() {
    // A mask of the default size is too small on machines with more than 1024 cores: the kernel then answers EINVAL.
    for (int capacity = CPU_SETSIZE; capacity <= (1 << 20); capacity *= 2) {
        cpu_set_t* mask = CPU_ALLOC(static_cast<std::size_t>(capacity));
        if (mask == nullptr) break;
        const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(capacity));
        const int count = sched_getaffinity(0, bytes, mask) == 0 ? CPU_COUNT_S(bytes, mask) : 0;
        CPU_FREE(mask);
        if (count > 0) return count;
    }
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// One parallel_for, on the stack of its caller. A worker that found it in `loops_` counts in `workers` from then on,
/// and the caller leaves only when the loop is out of `loops_` and `workers` is zero: no thread keeps a pointer to it.
struct ThreadPool::Loop {
    Loop(std::int64_t count_, int threads, const std::function<void(std::int64_t)>& body_)
        : count(count_), shares(std::int64_t{8} * threads), body(body_) {}

    /// Takes indices until none is left. Shares shrink with what remains: few atomic operations for many short
    /// bodies, and single indices at the end, so that no thread is left with a long tail.
    void run() {
        for (;;) {
            std::int64_t begin = next.load(std::memory_order_relaxed);
            std::int64_t end;
            do {
                if (begin >= count) return;
                end = begin + std::max<std::int64_t>(1, (count - begin) / shares);
            } while (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed));
            try {
                for (std::int64_t i = begin; i < end; ++i) {
                    if (failed.load(std::memory_order_relaxed)) return;
                    body(i);
                }
            } catch (...) {
                if (!failed.exchange(true)) error = std::current_exception();
                next.store(count, std::memory_order_relaxed);
                return;
            }
        }
    }

    const std::int64_t count;
    const std::int64_t shares;
    const std::function<void(std::int64_t)>& body;
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;      // written by the one who set `failed`, read when all workers have left
    int workers = 0;               // guarded by the pool's mutex
    std::condition_variable left;  // `workers` became zero
};

ThreadPool::ThreadPool(int threads) : threads_(threads > 0 ? threads : available_cores()) {}

ThreadPool::~ThreadPool() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::work() {
    std::unique_lock lock(mutex_);
    for (;;) {
        wake_.wait(lock, [this] { return stopping_ || !loops_.empty(); });
        if (stopping_) return;
        // The newest loop first: with nested loops it is the one that the others wait for.
        Loop* loop = loops_.back();
        ++loop->workers;
        lock.unlock();
        loop->run();
        lock.lock();
        // Its indices are all taken: no other thread need look at it.
        std::erase(loops_, loop);
        if (--loop->workers == 0) loop->left.notify_one();
    }
}

void ThreadPool::parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& body) {
    if (count <= 0) return;
    if (threads_ == 1 || count == 1) {
        for (std::int64_t i = 0; i < count; ++i) body(i);
        return;
    }
    Loop loop(count, threads_, body);
    {
        const std::lock_guard lock(mutex_);
        // The caller is one of the threads. Where the system gives no more threads, those that there are do the work.
        try {
            workers_.reserve(static_cast<std::size_t>(threads_));
            while (static_cast<int>(workers_.size()) < threads_ - 1) workers_.emplace_back([this] { work(); });
        } catch (const std::system_error&) {
        }
        loops_.push_back(&loop);
    }
    wake_.notify_all();
    loop.run();
    {
        std::unique_lock lock(mutex_);
        std::erase(loops_, &loop);
        loop.left.wait(lock, [&loop] { return loop.workers == 0; });
    }
    if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace smlora::util
