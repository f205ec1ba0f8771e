// Who may write to the cache: anyone who can write to it can run code on the GPU of everyone who reads it.
#pragma once

#include "util/file_system.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
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

/// What a folder is to the cache: a layer that is written to, another one, or a folder inside of a layer.
enum class FolderUse { writable, layer, inside };

/// Why a folder cannot be used so, with what helps: it is not a folder, its owner is neither this user nor root nor
/// trusted, or somebody who is not trusted may write to it. Nothing when it can.
[[nodiscard]] std::optional<std::string> refusal_of_folder(std::string_view folder, const util::FileStatus& status,
                                                           FolderUse use, const Writers& trusted = {});

/// The same for the file of an entry.
[[nodiscard]] std::optional<std::string> refusal_of_file(const util::FileStatus& status, const Writers& trusted = {});

}  // namespace smlora::cache
