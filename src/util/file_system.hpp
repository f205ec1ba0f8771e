// The seam through which the cache reaches the disk: every call of it can be made to fail by a test.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace smlora::util {

struct FileStatus {
    enum class Kind { regular, folder, link, other };

    Kind kind = Kind::other;
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::uint64_t size = 0;
    std::int64_t modified = 0;  ///< nanoseconds since 1970
    std::uint32_t owner = 0;    ///< user id
    std::uint32_t group = 0;    ///< group id
    std::uint32_t permissions = 0;

    /// The same file with the same content, as far as can be told without reading it.
    [[nodiscard]] bool same_file(const FileStatus& other) const {
        return device == other.device && inode == other.inode && size == other.size && modified == other.modified;
    }
};

/// What a call is about: a path, whose links are followed, or a name in a folder that is open, which is never followed
/// if it is a link. Where the folder could not be opened, the call answers with that error.
struct At {
    explicit At(const std::filesystem::path& path);
    /// `folder_`: a descriptor, or the negated errno of opening it.
    At(int folder_, std::string name_);

    int folder;
    std::string name;
};

/// System calls, each answering as Linux does: zero or a count or a descriptor when it succeeds, else the negated
/// errno. A call that a signal interrupted is made again. Thread-safe; nothing is thrown.
class FileSystem {
 public:
    virtual ~FileSystem() = default;

    /// Descriptors do not survive exec, and opening a FIFO does not wait for its other end.
    virtual int open(const At& at, int flags, ::mode_t mode) = 0;
    virtual ::ssize_t read(int descriptor, char* bytes, std::size_t count) = 0;
    virtual ::ssize_t write(int descriptor, const char* bytes, std::size_t count) = 0;
    virtual int sync(int descriptor) = 0;
    /// Closes the descriptor even if it returns an error.
    virtual int close(int descriptor) = 0;
    virtual int status(int descriptor, FileStatus& result) = 0;
    virtual int status(const At& at, FileStatus& result) = 0;
    virtual int rename(const At& from, const At& to) = 0;
    virtual int remove(const At& file) = 0;
    virtual int make_folder(const At& at, ::mode_t mode) = 0;
    /// Sets the time of modification to now.
    virtual int touch(const At& file) = 0;
    virtual int set_permissions(int descriptor, ::mode_t permissions) = 0;
    /// The names in a folder, without "." and "..", in no particular order.
    virtual int list(const At& folder, std::vector<std::string>& names) = 0;
    /// Locks one byte of a file for this descriptor, without waiting: -EAGAIN when another descriptor has it, of this
    /// process or of any other. The system gives the lock back when the descriptor's last copy is closed, so also when
    /// its process dies. A forked child has the descriptor closed, so that it keeps no lock that its parent had.
    virtual int try_lock(int descriptor, std::int64_t offset) = 0;
    virtual int unlock(int descriptor, std::int64_t offset) = 0;
};

/// The operating system's.
[[nodiscard]] FileSystem& real_file_system();

/// "No space left on device", of a negated errno.
[[nodiscard]] std::string describe_error(int error);

/// Whether a call's answer says that there is no such file.
[[nodiscard]] bool is_missing(int error) noexcept;

}  // namespace smlora::util
