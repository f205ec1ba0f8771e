// Letting others read the writable layer, so that they can name it as a layer of theirs.
#pragma once

#include "cache/layer.hpp"

#include <cstdint>
#include <vector>

namespace smlora::cache {

enum class Readers { group, everyone };

struct ShareReport {
    std::uint64_t changed = 0;           ///< folders and files that they may read now and might not before
    std::vector<CacheProblem> problems;  ///< what could not be changed, and folders above that keep them out
};

/// Lets `readers` read the layer's folders, kernels, records and bundles. It takes no permission away and gives none to
/// write. What is stored later is again for its owner alone.
[[nodiscard]] ShareReport share(const Layer& layer, Readers readers);

}  // namespace smlora::cache
