#include "cache/share.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <set>

namespace smlora::cache {
namespace {

constexpr ::mode_t to_read(Readers readers) { return readers == Readers::group ? S_IRGRP : S_IRGRP | S_IROTH; }
constexpr ::mode_t to_enter(Readers readers) { return readers == Readers::group ? S_IXGRP : S_IXGRP | S_IXOTH; }

}  // namespace

ShareReport share(util::FileSystem& files, const std::filesystem::path& root, Readers readers) {
    ShareReport report;
    const auto allow = [&](const std::filesystem::path& path, ::mode_t wanted) {
        util::FileStatus status;
        int error = files.status(path, status);
        if (error == -ENOENT) return;  // evicted meanwhile
        const ::mode_t permissions = static_cast<::mode_t>(status.permissions) | wanted;
        if (error == 0 && permissions != status.permissions) {
            error = files.set_permissions(path, permissions);
            if (error == 0) ++report.changed;
        }
        if (error != 0)
            report.problems.push_back({path, "its permissions cannot be set: " + util::describe_error(error)});
    };

    const Contents contents = scan(files, root);
    report.problems = contents.unreadable;
    std::set<std::filesystem::path> folders{root};
    for (const auto* list : {&contents.entries, &contents.records, &contents.bundles}) {
        for (const StoredFile& stored : *list) {
            allow(stored.file, to_read(readers));
            for (auto at = stored.file.parent_path(); at != root; at = at.parent_path()) folders.insert(at);
        }
    }
    // Whoever can enter a folder finds everything in it readable.
    for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder) {
        allow(*folder, to_read(readers) | to_enter(readers));
    }
    for (std::filesystem::path at = root; at.has_relative_path(); at = at.parent_path()) {
        util::FileStatus status;
        if (files.status(at.parent_path(), status) != 0) continue;
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
