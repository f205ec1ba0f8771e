// Whole files: read one, publish one so that no reader ever sees a part of it.
#pragma once

#include "util/file_system.hpp"

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace smlora::util {

/// A descriptor that is closed at the end of its scope.
class OpenFile {
 public:
    /// `error()` tells whether it worked.
    OpenFile(FileSystem& files, const At& at, int flags, ::mode_t mode = 0)
        : files_(&files), descriptor_(files.open(at, flags, mode)) {}
    ~OpenFile() { static_cast<void>(close()); }
    OpenFile(OpenFile&& other) noexcept : files_(other.files_), descriptor_(std::exchange(other.descriptor_, -1)) {}
    OpenFile& operator=(OpenFile&& other) noexcept {
        std::swap(files_, other.files_);
        std::swap(descriptor_, other.descriptor_);
        return *this;
    }

    [[nodiscard]] int error() const noexcept { return descriptor_ < 0 ? descriptor_ : 0; }
    [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

    /// Leaves the descriptor, which is no longer this one's to close.
    void release() noexcept { descriptor_ = -1; }

    /// For callers that must know whether closing worked, as a network file system may report a full disk only here.
    [[nodiscard]] int close();

 private:
    FileSystem* files_;
    int descriptor_;
};

/// Reads a regular file of at most `limit` bytes and tells its status when it was opened. Zero, or a negated errno:
/// -EINVAL when it is no regular file, -EPERM when `may_read` says no to its status, -EFBIG beyond the limit (`status`
/// is set in these cases, and no byte was read), -ENOMEM when there is no memory for it.
[[nodiscard]] int read_file(FileSystem& files, const At& at, std::uint64_t limit, std::string& bytes,
                            FileStatus& status, const std::function<bool(const FileStatus&)>& may_read = {});

/// Names of temporary files begin so; they lie beside the file that they were to become.
inline constexpr std::string_view temporary_prefix = ".tmp-";

/// Makes `target` hold `bytes`, with permissions `mode` less the umask, or leaves it as it was: an exclusive temporary
/// file in the same folder is written, synced and closed before it is renamed. Readers see the old file or the whole
/// new one, also after a crash of the machine; the folder is not synced, so such a crash may bring the old one back. On
/// failure the temporary file is removed, if that is still possible. Zero or a negated errno.
[[nodiscard]] int publish_file(FileSystem& files, const At& target, std::string_view bytes, ::mode_t mode = 0600);

/// Makes the folder and those above it that are missing, with permissions 0700. Zero also when it was there.
[[nodiscard]] int make_folders(FileSystem& files, const std::filesystem::path& folder);

}  // namespace smlora::util
