// Making the writable layer smaller on request.
#pragma once

#include "cache/layer.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace smlora::cache {

/// Which kernels are removed: those of `arch` (all, if it is empty) that have been unused for longer than `unused_for`,
/// and then those unused for longest, until those that are left hold `max_bytes` at most. Where neither is set, all.
struct PruneOptions {
    std::string arch;
    std::optional<std::chrono::seconds> unused_for;
    std::optional<std::uint64_t> max_bytes;
    bool dry_run = false;  ///< nothing is removed
};

struct PruneReport {
    std::uint64_t removed = 0;  ///< kernels, or as many as would be
    std::uint64_t removed_bytes = 0;
    std::uint64_t left = 0;  ///< kernels of any architecture
    std::uint64_t left_bytes = 0;
    std::vector<CacheProblem> problems;  ///< what could not be read or removed
};

/// `now`: the file server's, in nanoseconds since 1970.
[[nodiscard]] PruneReport prune(const Layer& layer, const PruneOptions& options, std::int64_t now);

}  // namespace smlora::cache
