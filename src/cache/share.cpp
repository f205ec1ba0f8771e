#include "cache/share.hpp"

#include "util/files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

#include <set>

namespace smlora::cache {
namespace {

constexpr ::mode_t to_read(Readers readers) { return readers == Readers::group ? S_IRGRP : S_IRGRP | S_IROTH; }
constexpr ::mode_t to_enter(Readers readers) { return readers == Readers::group ? S_IXGRP : S_IXGRP | S_IXOTH; }

}  // namespace

ShareReport share(const Layer& layer, Readers readers) {
    util::FileSystem& files = layer.files;
    const std::filesystem::path& root = layer.root;
    ShareReport report;
    const auto allow = [&](const std::filesystem::path& path, const util::At& at, ::mode_t wanted) {
        const util::OpenFile open(files, at, O_RDONLY);
        util::FileStatus status;
        int error = open.error();
        if (error == 0) error = files.status(open.descriptor(), status);
        if (error == -ENOENT) return;  // evicted meanwhile
        const ::mode_t permissions = static_cast<::mode_t>(status.permissions) | wanted;
        if (error == 0 && permissions != status.permissions) {
            error = files.set_permissions(open.descriptor(), permissions);
            if (error == 0) ++report.changed;
        }
        if (error != 0) {
            report.problems.push_back({path, "its permissions cannot be set: " + util::describe_error(error)});
        }
    };

    const Contents contents = scan(layer);
    report.problems = contents.unreadable;
    std::set<std::filesystem::path> folders{root};
    for (const auto* list : {&contents.entries, &contents.records, &contents.bundles}) {
        for (const StoredFile& stored : *list) {
            allow(stored.file, folder_of(layer, stored.file).at(stored.file), to_read(readers));
            for (auto at = stored.file.parent_path(); at != root; at = at.parent_path()) folders.insert(at);
        }
    }
    // Whoever can enter a folder finds everything in it readable.
    for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder) {
        allow(*folder, Folder(layer, *folder).itself(), to_read(readers) | to_enter(readers));
    }
    for (std::filesystem::path at = root; at.has_relative_path(); at = at.parent_path()) {
        util::FileStatus status;
        if (files.status(util::At(at.parent_path()), status) != 0) continue;
        if ((status.permissions & to_enter(readers)) != to_enter(readers)) {
            report.problems.push_back(
                {at.parent_path(), fmt::format("it keeps them out: its permissions are {:04o}, and "
                                               "smlora does not change folders above the cache",
                                               status.permissions)});
        }
    }
    return report;
}

}  // namespace smlora::cache
