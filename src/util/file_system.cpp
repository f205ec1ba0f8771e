#include "util/file_system.hpp"

#include "util/size_limit.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>

namespace smlora::util {
namespace {

/// Makes `call` until no signal interrupts it; its result, or the negated errno.
template <class Call>
auto answer(const Call& call) {
    for (;;) {
        const auto result = call();
        if (result >= 0) return result;
        if (errno != EINTR) return static_cast<decltype(call())>(-errno);
    }
}

FileStatus status_of(const struct ::stat& raw) {
    FileStatus status;
    status.kind = S_ISREG(raw.st_mode)   ? FileStatus::Kind::regular
                  : S_ISDIR(raw.st_mode) ? FileStatus::Kind::folder
                                         : FileStatus::Kind::other;
    status.device = raw.st_dev;
    status.inode = raw.st_ino;
    status.size = static_cast<std::uint64_t>(raw.st_size);
    status.modified = std::int64_t{raw.st_mtim.tv_sec} * 1'000'000'000 + raw.st_mtim.tv_nsec;
    status.owner = raw.st_uid;
    status.group = raw.st_gid;
    status.permissions = raw.st_mode & 07777u;
    return status;
}

struct ::flock one_byte(short type, std::int64_t offset) {
    struct ::flock range {};
    range.l_type = type;
    range.l_whence = SEEK_SET;
    range.l_start = offset;
    range.l_len = 1;
    return range;
}

// The descriptors that locks were asked for with. Flags rather than a list, as a child that was forked from a process
// with threads may call nothing that takes a mutex; beyond so many descriptors children inherit locks.
std::array<std::atomic<bool>, 65536> lock_descriptors;
std::atomic<int> highest_lock_descriptor{-1};

void close_lock_descriptors() {
    for (int descriptor = 0; descriptor <= highest_lock_descriptor; ++descriptor) {
        if (lock_descriptors[static_cast<std::size_t>(descriptor)].exchange(false)) ::close(descriptor);
    }
}

void keep_from_children(int descriptor) {
    static const int registered = ::pthread_atfork(nullptr, nullptr, close_lock_descriptors);
    static_cast<void>(registered);
    if (descriptor < 0 || static_cast<std::size_t>(descriptor) >= lock_descriptors.size()) return;
    int highest = highest_lock_descriptor;
    while (descriptor > highest && !highest_lock_descriptor.compare_exchange_weak(highest, descriptor)) {
    }
    lock_descriptors[static_cast<std::size_t>(descriptor)] = true;
}

void forget_lock_descriptor(int descriptor) {
    if (descriptor >= 0 && descriptor <= highest_lock_descriptor) {
        lock_descriptors[static_cast<std::size_t>(descriptor)] = false;
    }
}

class RealFileSystem final : public FileSystem {
 public:
    int open(const std::filesystem::path& path, int flags, ::mode_t mode) override {
        return answer([&] { return ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, mode); });
    }

    ::ssize_t read(int descriptor, char* bytes, std::size_t count) override {
        return answer([&] { return ::read(descriptor, bytes, count); });
    }

    ::ssize_t write(int descriptor, const char* bytes, std::size_t count) override {
        return answer([&] { return write_within_limit(descriptor, bytes, count); });
    }

    int sync(int descriptor) override {
        return answer([&] { return ::fsync(descriptor); });
    }

    int close(int descriptor) override {
        forget_lock_descriptor(descriptor);
        // Linux frees the descriptor even when it answers EINTR: closing again would hit another thread's file.
        return ::close(descriptor) == 0 || errno == EINTR ? 0 : -errno;
    }

    int status(int descriptor, FileStatus& result) override {
        struct ::stat raw;
        const int error = answer([&] { return ::fstat(descriptor, &raw); });
        if (error == 0) result = status_of(raw);
        return error;
    }

    int status(const std::filesystem::path& path, FileStatus& result) override {
        struct ::stat raw;
        const int error = answer([&] { return ::stat(path.c_str(), &raw); });
        if (error == 0) result = status_of(raw);
        return error;
    }

    int rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
        return answer([&] { return ::rename(from.c_str(), to.c_str()); });
    }

    int remove(const std::filesystem::path& file) override {
        return answer([&] { return ::unlink(file.c_str()); });
    }

    int make_folder(const std::filesystem::path& path, ::mode_t mode) override {
        return answer([&] { return ::mkdir(path.c_str(), mode); });
    }

    int touch(const std::filesystem::path& file) override {
        const struct ::timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
        return answer([&] { return ::utimensat(AT_FDCWD, file.c_str(), times, 0); });
    }

    int set_permissions(const std::filesystem::path& path, ::mode_t permissions) override {
        return answer([&] { return ::chmod(path.c_str(), permissions); });
    }

    int list(const std::filesystem::path& folder, std::vector<std::string>& names) override {
        names.clear();
        const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(folder.c_str()), ::closedir);
        if (!stream) return -errno;
        for (;;) {
            errno = 0;  // the only way to tell the end from a failure
            const struct ::dirent* found = ::readdir(stream.get());
            if (found == nullptr) return -errno;
            const std::string name = found->d_name;
            if (name != "." && name != "..") names.push_back(name);
        }
    }

    // Open-file-description locks rather than flock: they also reach across nodes on NFS and GPFS. Rather than POSIX
    // record locks: those do not exclude threads of one process from each other, and closing any descriptor of the
    // file drops them.
    int try_lock(int descriptor, std::int64_t offset) override {
        keep_from_children(descriptor);
        struct ::flock range = one_byte(F_WRLCK, offset);
        const int error = answer([&] { return ::fcntl(descriptor, F_OFD_SETLK, &range); });
        return error == -EACCES ? -EAGAIN : error;
    }

    int unlock(int descriptor, std::int64_t offset) override {
        struct ::flock range = one_byte(F_UNLCK, offset);
        return answer([&] { return ::fcntl(descriptor, F_OFD_SETLK, &range); });
    }
};

}  // namespace

FileSystem& real_file_system() {
    // Never destroyed: another thread may still write while static objects go.
    static auto& files = *new RealFileSystem;
    return files;
}

std::string describe_error(int error) { return std::generic_category().message(-error); }

bool is_missing(int error) noexcept { return error == -ENOENT || error == -ENOTDIR; }

}  // namespace smlora::util
