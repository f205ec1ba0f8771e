#include "util/process.hpp"

#include <pthread.h>
#include <unistd.h>

#include <atomic>

namespace smlora::util {
namespace {

// Forks between the first process and this one, as far as an Origin had been made before.
std::atomic<std::uint64_t> forks{0};

void count_forks() {
    static const int registered =
        ::pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
    static_cast<void>(registered);
}

}  // namespace

Origin::Origin() : pid_(::getpid()) {
    count_forks();
    forks_ = forks.load(std::memory_order_relaxed);
}

bool Origin::is_this_process() const noexcept { return forks.load(std::memory_order_relaxed) == forks_; }

}  // namespace smlora::util
