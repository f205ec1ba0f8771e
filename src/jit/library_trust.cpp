#include "jit/library_trust.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace smlora::jit {
namespace {

namespace fs = std::filesystem;

// As many as Linux follows.
constexpr int most_links = 40;

struct Walk {
    const cache::Writers& trusted;
    int links = 0;

    [[nodiscard]] bool is_known(::uid_t owner) const {
        return owner == 0 || owner == ::geteuid() || trusted.owners.contains(owner);
    }

    /// Why nobody can rely on what `path` leads to: of each folder on the way, and of what links point to.
    [[nodiscard]] std::optional<std::string> refusal_of(const fs::path& path) {
        fs::path folder = "/";
        for (const fs::path& name : path.relative_path()) {
            const fs::path next = folder / name;
            struct ::stat above {};
            struct ::stat found {};
            if (::stat(folder.c_str(), &above) != 0 || ::lstat(next.c_str(), &found) != 0) {
                return fmt::format("{} cannot be looked at", next.string());
            }
            const bool open = (above.st_mode & S_IWOTH) != 0;
            const bool sticky = (above.st_mode & S_ISVTX) != 0;
            if (open && !sticky) {
                return fmt::format("anyone may write to the folder {} (its permissions are {:04o}); run `chmod o-w {}`",
                                   folder.string(), above.st_mode & 07777u, folder.string());
            }
            if (open && !is_known(found.st_uid)) {
                return fmt::format("user {}, who is neither user {} nor root, put {} into a folder that is everyone's",
                                   found.st_uid, ::geteuid(), next.string());
            }
            if (S_ISLNK(found.st_mode)) {
                if (++links > most_links) return fmt::format("{} leads through too many links", path.string());
                std::error_code error;
                // An absolute target takes the place of the folder.
                const fs::path target = folder / fs::read_symlink(next, error);
                if (const auto why = refusal_of(target)) return why;
            }
            folder = next;
        }
        return std::nullopt;
    }

    [[nodiscard]] std::optional<std::string> refusal_of_file(const fs::path& library) const {
        std::error_code error;
        const fs::path file = fs::canonical(library, error);
        struct ::stat found {};
        struct ::stat above {};
        if (error || ::stat(file.c_str(), &found) != 0 || ::stat(file.parent_path().c_str(), &above) != 0) {
            return "it cannot be looked at";
        }
        if ((found.st_mode & S_IWOTH) != 0) {
            return fmt::format("anyone may write to it (its permissions are {:04o}); run `chmod o-w {}`",
                               found.st_mode & 07777u, file.string());
        }
        if (!is_known(found.st_uid) && found.st_uid != above.st_uid) {
            return fmt::format("it belongs to user {}, expected user {}, root or the owner of its folder, user {}",
                               found.st_uid, ::geteuid(), above.st_uid);
        }
        return std::nullopt;
    }
};

}  // namespace

std::optional<std::string> refusal_of_library(const fs::path& library, const cache::Writers& trusted) {
    if (trusted.everyone) return std::nullopt;
    Walk walk{trusted};
    std::optional<std::string> why = walk.refusal_of(library);
    if (!why) why = walk.refusal_of_file(library);
    if (!why) return std::nullopt;
    return fmt::format("{} is not loaded: {}", library.string(), *why);
}

}  // namespace smlora::jit
