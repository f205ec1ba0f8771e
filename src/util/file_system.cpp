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
#include <utility>

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

bool is_path(const At& at) { return at.folder == AT_FDCWD; }

/// Why there is no folder.
int error_of(const At& at) { return at.folder < 0 && !is_path(at) ? at.folder : 0; }

FileStatus status_of(const struct ::stat& raw) {
    FileStatus status;
    status.kind = S_ISREG(raw.st_mode)   ? FileStatus::Kind::regular
                  : S_ISDIR(raw.st_mode) ? FileStatus::Kind::folder
                  : S_ISLNK(raw.st_mode) ? FileStatus::Kind::link
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
    int open(const At& at, int flags, ::mode_t mode) override {
        if (const int error = error_of(at); error != 0) return error;
        const int all = flags | O_CLOEXEC | O_NONBLOCK | (is_path(at) ? 0 : O_NOFOLLOW);
        return answer([&] { return ::openat(at.folder, at.name.c_str(), all, mode); });
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

    int status(const At& at, FileStatus& result) override {
        if (const int error = error_of(at); error != 0) return error;
        struct ::stat raw;
        const int flags = is_path(at) ? 0 : AT_SYMLINK_NOFOLLOW;
        const int error = answer([&] { return ::fstatat(at.folder, at.name.c_str(), &raw, flags); });
        if (error == 0) result = status_of(raw);
        return error;
    }

    int rename(const At& from, const At& to) override {
        if (const int error = error_of(from); error != 0) return error;
        if (const int error = error_of(to); error != 0) return error;
        return answer([&] { return ::renameat(from.folder, from.name.c_str(), to.folder, to.name.c_str()); });
    }

    int remove(const At& file) override {
        if (const int error = error_of(file); error != 0) return error;
        return answer([&] { return ::unlinkat(file.folder, file.name.c_str(), 0); });
    }

    int make_folder(const At& at, ::mode_t mode) override {
        if (const int error = error_of(at); error != 0) return error;
        return answer([&] { return ::mkdirat(at.folder, at.name.c_str(), mode); });
    }

    int touch(const At& file) override {
        if (const int error = error_of(file); error != 0) return error;
        const struct ::timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
        const int flags = is_path(file) ? 0 : AT_SYMLINK_NOFOLLOW;
        return answer([&] { return ::utimensat(file.folder, file.name.c_str(), times, flags); });
    }

    int set_permissions(int descriptor, ::mode_t permissions) override {
        return answer([&] { return ::fchmod(descriptor, permissions); });
    }

    int list(const At& folder, std::vector<std::string>& names) override {
        names.clear();
        const int descriptor = open(folder, O_RDONLY | O_DIRECTORY, 0);
        if (descriptor < 0) return descriptor;
        const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(descriptor), ::closedir);
        if (!stream) {
            const int error = -errno;
            ::close(descriptor);
            return error;
        }
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

At::At(const std::filesystem::path& path) : folder(AT_FDCWD), name(path.native()) {}

// -ENETDOWN is the number of AT_FDCWD, which would make a path of the name.
At::At(int folder_, std::string name_) : folder(folder_ == AT_FDCWD ? -EIO : folder_), name(std::move(name_)) {}

FileSystem& real_file_system() {
    // Never destroyed: another thread may still write while static objects go.
    static auto& files = *new RealFileSystem;
    return files;
}

std::string describe_error(int error) { return std::generic_category().message(-error); }

bool is_missing(int error) noexcept { return error == -ENOENT || error == -ENOTDIR; }

}  // namespace smlora::util
