// A lock between threads and processes that saves work and never carries correctness.
#pragma once

#include "util/files.hpp"
#include "util/process.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>

namespace smlora::util {

/// One byte of a lock file, held from construction to the end of the scope. Every lock of a cache is a byte of one
/// file that is never removed: removing lock files is a race of its own, and thousands of them eat inode quotas. A
/// child that is forked meanwhile does not have it, and its end of the scope gives nothing back.
class ByteLock {
 public:
    /// Waits at most `patience` for another holder. The file is made if it is missing; its folder must exist.
    ByteLock(FileSystem& files, const At& file, std::int64_t offset, std::chrono::milliseconds patience);
    ~ByteLock();
    ByteLock(const ByteLock&) = delete;
    ByteLock& operator=(const ByteLock&) = delete;

    /// Asks once more, if it was in vain because of another holder.
    void try_again();

    [[nodiscard]] bool held() const noexcept { return error_ == 0; }
    /// Why it is not held: -EAGAIN when the wait was in vain, else what the system said.
    [[nodiscard]] int error() const noexcept { return error_; }

 private:
    FileSystem& files_;
    OpenFile file_;
    std::int64_t offset_;
    int error_;
    Origin origin_;
};

}  // namespace smlora::util
