// Who may write to the cache: anyone who can write to it can run code on the GPU of everyone who reads it.
#pragma once

#include "util/file_system.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace smlora::cache {

/// Who may write to a file beside this user and root.
struct Writers {
    std::set<std::uint32_t> owners;
    std::set<std::uint32_t> groups;
    bool everyone = false;
};

/// Those who may change `file` or put another one in its place, in its folder or in those above it. Of the library
/// itself: what they want to run in this process, they can run already.
[[nodiscard]] Writers writers_of(const util::FileStatus& file, const std::vector<util::FileStatus>& folders);
/// `file` is absolute. Nobody when it is gone.
[[nodiscard]] Writers writers_of(util::FileSystem& files, const std::filesystem::path& file);

/// What a folder is to the cache.
enum class FolderUse { writable, layer };

/// Why a folder cannot be a layer, with what helps: it is not a folder, its owner is neither this user nor root nor
/// trusted, or somebody who is not trusted may write to it. Nothing when it can.
[[nodiscard]] std::optional<std::string> refusal_of_folder(const std::filesystem::path& folder,
                                                           const util::FileStatus& status, FolderUse use,
                                                           const Writers& trusted = {});

/// The same for the file of an entry. With it a folder within a layer that others may write to is no danger: what they
/// put there is theirs, and refused.
[[nodiscard]] std::optional<std::string> refusal_of_file(const util::FileStatus& status, const Writers& trusted = {});

}  // namespace smlora::cache
