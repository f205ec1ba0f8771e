// Letting others read the writable layer, so that they can name it as a layer of theirs.
#pragma once

#include "cache/layer.hpp"
#include "util/file_system.hpp"

#include <cstdint>
#include <filesystem>
#include <vector>

namespace smlora::cache {

enum class Readers { group, everyone };

struct ShareReport {
    std::uint64_t changed = 0;           ///< folders and files that they may read now and might not before
    std::vector<CacheProblem> problems;  ///< what could not be changed, and folders above that keep them out
};

/// Lets `readers` read the layer's folders, kernels, records and bundles. It takes no permission away and gives none to
/// write. What is stored later is again for its owner alone.
[[nodiscard]] ShareReport share(util::FileSystem& files, const std::filesystem::path& root, Readers readers);

}  // namespace smlora::cache
