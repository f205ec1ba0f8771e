// A file system whose calls fail when a test says so.
#pragma once

#include "util/file_system.hpp"

#include <fcntl.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <functional>
#include <mutex>

namespace smlora::testing {

enum class Call {
    open,
    read,
    write,
    sync,
    close,
    status,
    rename,
    remove,
    make_folder,
    touch,
    set_permissions,
    list,
    lock,
    unlock
};

struct CallRecord {
    Call call;
    bool changes = false;  ///< whether the call would change the disk
    int index = 0;         ///< calls before it
};

class FaultFileSystem final : public util::FileSystem {
 public:
    /// Asked before each call: zero lets it through, a negated errno is answered in its place. A descriptor is closed
    /// all the same.
    using Fault = std::function<int(const CallRecord&)>;

    explicit FaultFileSystem(Fault fault = {}) : fault_(std::move(fault)) {}

    void set_fault(Fault fault) {
        const std::lock_guard lock(mutex_);
        fault_ = std::move(fault);
        calls_ = 0;
    }
    [[nodiscard]] int calls() const { return calls_; }

    /// A write that fails has written this much before.
    enum class Torn { no, half };
    Torn torn = Torn::no;
    /// The clock of the files is this far ahead of the machine's.
    std::chrono::nanoseconds ahead{0};
    /// No write takes more bytes than this.
    std::size_t longest_write = SIZE_MAX;

    int open(const util::At& at, int flags, ::mode_t mode) override {
        if (const int error = ask(Call::open, (flags & (O_CREAT | O_WRONLY | O_RDWR)) != 0)) return error;
        return real_.open(at, flags, mode);
    }
    ::ssize_t read(int descriptor, char* bytes, std::size_t count) override {
        if (const int error = ask(Call::read)) return error;
        return real_.read(descriptor, bytes, count);
    }
    ::ssize_t write(int descriptor, const char* bytes, std::size_t count) override {
        if (const int error = ask(Call::write, true)) {
            if (torn == Torn::half) static_cast<void>(real_.write(descriptor, bytes, count / 2));
            return error;
        }
        return real_.write(descriptor, bytes, std::min(count, longest_write));
    }
    /// Answers and does nothing: no test here turns the machine off, and disks take their time.
    int sync(int /*descriptor*/) override { return ask(Call::sync, true); }
    int close(int descriptor) override {
        const int error = ask(Call::close);
        const int closed = real_.close(descriptor);
        return error != 0 ? error : closed;
    }
    int status(int descriptor, util::FileStatus& result) override {
        if (const int error = ask(Call::status)) return error;
        const int answer = real_.status(descriptor, result);
        if (answer == 0) result.modified += ahead.count();
        return answer;
    }
    int status(const util::At& at, util::FileStatus& result) override {
        if (const int error = ask(Call::status)) return error;
        const int answer = real_.status(at, result);
        if (answer == 0) result.modified += ahead.count();
        return answer;
    }
    int rename(const util::At& from, const util::At& to) override {
        if (const int error = ask(Call::rename, true)) return error;
        return real_.rename(from, to);
    }
    int remove(const util::At& file) override {
        if (const int error = ask(Call::remove, true)) return error;
        return real_.remove(file);
    }
    int make_folder(const util::At& at, ::mode_t mode) override {
        if (const int error = ask(Call::make_folder, true)) return error;
        return real_.make_folder(at, mode);
    }
    int touch(const util::At& file) override {
        if (const int error = ask(Call::touch, true)) return error;
        return real_.touch(file);
    }
    int set_permissions(int descriptor, ::mode_t permissions) override {
        if (const int error = ask(Call::set_permissions, true)) return error;
        return real_.set_permissions(descriptor, permissions);
    }
    int list(const util::At& folder, std::vector<std::string>& names) override {
        if (const int error = ask(Call::list)) return error;
        return real_.list(folder, names);
    }
    int try_lock(int descriptor, std::int64_t offset) override {
        if (const int error = ask(Call::lock)) return error;
        return real_.try_lock(descriptor, offset);
    }
    int unlock(int descriptor, std::int64_t offset) override {
        if (const int error = ask(Call::unlock)) return error;
        return real_.unlock(descriptor, offset);
    }

 private:
    int ask(Call call, bool changes = false) {
        const std::lock_guard lock(mutex_);
        const CallRecord record{call, changes, calls_++};
        return fault_ ? fault_(record) : 0;
    }

    util::FileSystem& real_ = util::real_file_system();
    Fault fault_;
    std::mutex mutex_;
    std::atomic<int> calls_{0};
};

/// The n-th call fails, once.
inline FaultFileSystem::Fault fail_call(int n, int error) {
    return [n, error](const CallRecord& record) { return record.index == n ? error : 0; };
}

/// From the n-th call on nothing works any more, as for a process that was killed there.
inline FaultFileSystem::Fault die_at_call(int n) {
    return [n](const CallRecord& record) { return record.index >= n ? -EIO : 0; };
}

inline FaultFileSystem::Fault fail_every(Call call, int error) {
    return [call, error](const CallRecord& record) { return record.call == call ? error : 0; };
}

inline FaultFileSystem::Fault read_only_disk() {
    return [](const CallRecord& record) { return record.changes ? -EROFS : 0; };
}

}  // namespace smlora::testing
