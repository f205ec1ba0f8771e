#include "cache/trust.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace smlora::cache {
namespace {

bool is_strangers(const util::FileStatus& status) { return status.owner != 0 && status.owner != ::geteuid(); }

bool others_may_write(const util::FileStatus& status) { return (status.permissions & (S_IWGRP | S_IWOTH)) != 0; }

}  // namespace

std::optional<std::string> refusal_of_folder(const std::filesystem::path& folder, const util::FileStatus& status) {
    if (status.kind != util::FileStatus::Kind::folder) {
        return fmt::format("cache folder {}: expected a folder, but it is a file; name another one", folder.string());
    }
    if (is_strangers(status)) {
        return fmt::format(
            "cache folder {}: belongs to user {}, expected user {} or root, as its owner can run code on your GPU; run "
            "`chown -R {} {}` or name another folder",
            folder.string(), status.owner, ::geteuid(), ::geteuid(), folder.string());
    }
    if (others_may_write(status)) {
        return fmt::format(
            "cache folder {}: its permissions are {:04o}, expected no write access for group and others, as anyone who "
            "can write to the cache can run code on your GPU; run `chmod -R go-w {}`",
            folder.string(), status.permissions, folder.string());
    }
    return std::nullopt;
}

std::optional<std::string> refusal_of_file(const util::FileStatus& status) {
    if (is_strangers(status)) {
        return fmt::format("it belongs to user {}, expected user {} or root", status.owner, ::geteuid());
    }
    if (others_may_write(status)) {
        return fmt::format("its permissions are {:04o}, expected no write access for group and others (chmod go-w)",
                           status.permissions);
    }
    return std::nullopt;
}

}  // namespace smlora::cache
