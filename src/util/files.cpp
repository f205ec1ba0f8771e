#include "util/files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <random>

namespace smlora::util {
namespace {

int write_all(FileSystem& files, int descriptor, std::string_view bytes) {
    while (!bytes.empty()) {
        const ::ssize_t written = files.write(descriptor, bytes.data(), bytes.size());
        if (written < 0) return static_cast<int>(written);
        if (written == 0) return -EIO;  // nothing was written and no error given: another try may never end
        bytes.remove_prefix(static_cast<std::size_t>(written));
    }
    return 0;
}

int write_temporary(FileSystem& files, const At& at, std::string_view bytes, ::mode_t mode) {
    OpenFile file(files, at, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (file.error() != 0) return file.error();
    int error = write_all(files, file.descriptor(), bytes);
    if (error == 0) error = files.sync(file.descriptor());
    const int closed = file.close();
    return error != 0 ? error : closed;
}

/// The process id tells people whose it is; the random part keeps threads, and processes of other machines that share
/// the folder, from meeting.
At temporary_beside(const At& target) {
    thread_local std::random_device random;
    const std::uint64_t number = (std::uint64_t{random()} << 32) | random();
    At temporary = target;
    temporary.name = std::filesystem::path(target.name)
                         .replace_filename(fmt::format("{}{}-{:016x}", temporary_prefix, ::getpid(), number));
    return temporary;
}

}  // namespace

int OpenFile::close() {
    if (descriptor_ < 0) return 0;
    const int error = files_->close(descriptor_);
    descriptor_ = -1;
    return error;
}

int read_file(FileSystem& files, const At& at, std::uint64_t limit, std::string& bytes, FileStatus& status,
              const std::function<bool(const FileStatus&)>& may_read) {
    bytes.clear();
    const OpenFile file(files, at, O_RDONLY);
    if (file.error() == -ELOOP && files.status(at, status) == 0 && status.kind == FileStatus::Kind::link) {
        return -EINVAL;
    }
    if (file.error() != 0) return file.error();
    if (const int error = files.status(file.descriptor(), status); error != 0) return error;
    if (status.kind != FileStatus::Kind::regular) return -EINVAL;
    if (may_read && !may_read(status)) return -EPERM;
    if (status.size > limit) return -EFBIG;
    try {
        bytes.resize(static_cast<std::size_t>(status.size));
    } catch (const std::bad_alloc&) {
        return -ENOMEM;
    }
    std::size_t filled = 0;
    while (filled < bytes.size()) {
        const ::ssize_t count = files.read(file.descriptor(), bytes.data() + filled, bytes.size() - filled);
        if (count < 0) return static_cast<int>(count);
        if (count == 0) break;  // it has shrunk since
        filled += static_cast<std::size_t>(count);
    }
    bytes.resize(filled);
    return 0;
}

int publish_file(FileSystem& files, const At& target, std::string_view bytes, ::mode_t mode) {
    const At temporary = temporary_beside(target);
    int error = write_temporary(files, temporary, bytes, mode);
    // A file that was there already is somebody else's: it stays.
    if (error == -EEXIST) return error;
    if (error == 0) error = files.rename(temporary, target);
    if (error != 0) static_cast<void>(files.remove(temporary));
    return error;
}

int make_folders(FileSystem& files, const std::filesystem::path& folder) {
    int error = files.make_folder(At(folder), 0700);
    if (error == -ENOENT && folder.has_parent_path() && folder.parent_path() != folder) {
        error = make_folders(files, folder.parent_path());
        if (error == 0) error = files.make_folder(At(folder), 0700);
    }
    if (error == -EEXIST) {
        FileStatus status;
        error = files.status(At(folder), status);
        if (error == 0 && status.kind != FileStatus::Kind::folder) error = -ENOTDIR;
    }
    return error;
}

}  // namespace smlora::util
