// Whose library may be loaded: its code runs in this process.
#pragma once

#include "cache/trust.hpp"

#include <filesystem>
#include <optional>
#include <string>

namespace smlora::jit {

/// Why a library is not loaded, with what helps. It is not if anyone may write to it or to a folder on the way to it,
/// links included, or if its owner is neither this user nor root nor the owner of its folder, who put the toolkit
/// there. In a folder that everyone may add to (/tmp), what leads to the library must be this user's or root's.
/// `trusted` may write all of it. Nothing when it can be loaded.
[[nodiscard]] std::optional<std::string> refusal_of_library(const std::filesystem::path& library,
                                                            const cache::Writers& trusted = {});

}  // namespace smlora::jit
