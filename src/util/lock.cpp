#include "util/lock.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <thread>

namespace smlora::util {
namespace {

// Nothing wakes a waiter of a lock with a bounded wait, so it asks again and again: soon at first, as a compile that
// is nearly done is common, and every 50 ms at last, which is little beside the half second of a compile.
constexpr std::chrono::milliseconds first_pause{2};
constexpr std::chrono::milliseconds longest_pause{50};

int lock_within(FileSystem& files, int descriptor, std::int64_t offset, std::chrono::milliseconds patience) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    for (auto pause = first_pause;; pause = std::min(pause * 2, longest_pause)) {
        const int error = files.try_lock(descriptor, offset);
        if (error != -EAGAIN) return error;
        const auto left = deadline - std::chrono::steady_clock::now();
        if (left <= left.zero()) return error;
        std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(pause, left));
    }
}

}  // namespace

ByteLock::ByteLock(FileSystem& files, const At& file, std::int64_t offset, std::chrono::milliseconds patience)
    : files_(files), file_(files, file, O_RDWR | O_CREAT, 0600), offset_(offset), error_(file_.error()) {
    if (error_ == 0) error_ = lock_within(files_, file_.descriptor(), offset_, patience);
}

ByteLock::~ByteLock() {
    if (!origin_.is_this_process()) {
        file_.release();
    } else if (held()) {
        static_cast<void>(files_.unlock(file_.descriptor(), offset_));
    }
}

void ByteLock::try_again() {
    if (error_ == -EAGAIN) error_ = files_.try_lock(file_.descriptor(), offset_);
}

}  // namespace smlora::util
