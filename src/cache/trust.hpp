// Who may write to the cache: anyone who can write to it can run code on the GPU of everyone who reads it.
#pragma once

#include "util/file_system.hpp"

#include <filesystem>
#include <optional>
#include <string>

namespace smlora::cache {

/// Why a folder cannot be a layer, with the command that helps: it is not a folder, its owner is neither this user nor
/// root, or its group or others may write to it. Nothing when it can.
[[nodiscard]] std::optional<std::string> refusal_of_folder(const std::filesystem::path& folder,
                                                           const util::FileStatus& status);

/// The same for the file of an entry. With it a folder within a layer that others may write to is no danger: what they
/// put there is theirs, and refused.
[[nodiscard]] std::optional<std::string> refusal_of_file(const util::FileStatus& status);

}  // namespace smlora::cache
