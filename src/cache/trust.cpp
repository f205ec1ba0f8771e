#include "cache/trust.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace smlora::cache {
namespace {

bool is_strangers(const util::FileStatus& status, const Writers& trusted) {
    return status.owner != 0 && status.owner != ::geteuid() && !trusted.owners.contains(status.owner);
}

bool others_may_write(const util::FileStatus& status, const Writers& trusted) {
    if (trusted.everyone) return false;
    const bool group_may = (status.permissions & S_IWGRP) != 0;
    return (status.permissions & S_IWOTH) != 0 || (group_may && !trusted.groups.contains(status.group));
}

}  // namespace

Writers writers_of(const util::FileStatus& file, const std::vector<util::FileStatus>& folders) {
    Writers writers;
    const auto add = [&](const util::FileStatus& status) {
        writers.owners.insert(status.owner);
        // In a folder with the sticky bit nobody else replaces a file.
        if ((status.permissions & S_ISVTX) != 0) return;
        if ((status.permissions & S_IWGRP) != 0) writers.groups.insert(status.group);
        if ((status.permissions & S_IWOTH) != 0) writers.everyone = true;
    };
    add(file);
    std::for_each(folders.begin(), folders.end(), add);
    return writers;
}

Writers writers_of(util::FileSystem& files, const std::filesystem::path& file) {
    util::FileStatus status;
    if (files.status(util::At(file), status) != 0) return {};
    std::vector<util::FileStatus> folders;
    for (std::filesystem::path at = file; at.has_relative_path(); at = at.parent_path()) {
        if (files.status(util::At(at.parent_path()), folders.emplace_back()) != 0) return {};
    }
    return writers_of(status, folders);
}

std::optional<std::string> refusal_of_folder(std::string_view folder, const util::FileStatus& status, FolderUse use,
                                             const Writers& trusted) {
    const bool inside = use == FolderUse::inside;
    if (status.kind == util::FileStatus::Kind::link) {
        return fmt::format("expected a folder, but it is a symbolic link; run `rm {}`", folder);
    }
    if (status.kind != util::FileStatus::Kind::folder) {
        return fmt::format("expected a folder, but it is a file; {}", inside ? "remove it" : "name another one");
    }
    if (is_strangers(status, trusted)) {
        const std::string instead =
            use == FolderUse::layer
                ? fmt::format(", or set SMLORA_CACHE_TRUST={} if you trust that user as yourself", status.owner)
                : "";
        return fmt::format(
            "belongs to user {}, expected user {} or root, as its owner can run code on your GPU; {}{}, and do not "
            "take this one over: what is in it was made by someone else",
            status.owner, ::geteuid(), inside ? "remove it" : "name another folder", instead);
    }
    if (others_may_write(status, trusted)) {
        return fmt::format(
            "its permissions are {:04o}, expected no write access for group and others, as anyone who can write to "
            "the cache can run code on your GPU; run `chmod -R go-w {}`",
            status.permissions, folder);
    }
    return std::nullopt;
}

std::optional<std::string> refusal_of_file(const util::FileStatus& status, const Writers& trusted) {
    if (is_strangers(status, trusted)) {
        return fmt::format("it belongs to user {}, expected user {} or root", status.owner, ::geteuid());
    }
    if (others_may_write(status, trusted)) {
        return fmt::format("its permissions are {:04o}, expected no write access for group and others (chmod go-w)",
                           status.permissions);
    }
    return std::nullopt;
}

}  // namespace smlora::cache
