// The JSON texts of the C ABI: what smlora.h says about each.
#pragma once

#include <smlora/cache.hpp>
#include <smlora/prewarm.hpp>
#include <smlora/system.hpp>
#include <smlora/tune.hpp>

#include <string>
#include <vector>

namespace smlora::capi {

[[nodiscard]] std::string to_json(const SystemInfo& system);
[[nodiscard]] std::string to_json(const std::vector<CacheLayer>& layers);
[[nodiscard]] std::string to_json(const CacheStats& stats);
[[nodiscard]] std::string to_json(const std::vector<CacheEntryInfo>& entries);
[[nodiscard]] std::string to_json(const CacheEntryInfo& entry);
[[nodiscard]] std::string to_json(const std::vector<CacheProblem>& problems);
[[nodiscard]] std::string to_json(const PrewarmReport& report);
[[nodiscard]] std::string to_json(const TuneReport& report);

}  // namespace smlora::capi
