// Looking into the cache rather than using it: nothing is touched, counted or removed.
#pragma once

#include "cache/layer.hpp"

#include <smlora/cache.hpp>

#include <string>
#include <vector>

namespace smlora::cache {

using Layers = std::vector<Layer>;  ///< in the order in which they are consulted

/// See Cache::list.
[[nodiscard]] std::vector<CacheEntryInfo> list_entries(const Layers& layers, const std::string& prefix,
                                                       std::vector<CacheProblem>& unreadable);

/// See Cache::inspect.
[[nodiscard]] CacheEntryInfo find_entry(const Layers& layers, const std::string& prefix);

/// See Cache::verify.
[[nodiscard]] std::vector<UnsoundFile> find_problems(const Layer& layer, Checked& checked);

/// Throws Error{io} that names the first of `problems` and says how many more there are.
void require_none(const std::vector<CacheProblem>& problems);

}  // namespace smlora::cache
