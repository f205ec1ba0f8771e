// The public functions that look after the cache of an engine.
#include "cache/cache.hpp"
#include "cache/inspection.hpp"
#include "engine/engine_impl.hpp"
#include "jit/kernel_library.hpp"

#include <smlora/cache.hpp>

#include <utility>

namespace smlora {

std::vector<CacheLayer> cache_layers(const Engine& engine) { return engine.impl().cache.layers(); }

CacheStats cache_stats(const Engine& engine) {
    const cache::Cache& cache = engine.impl().cache;
    const jit::LibraryCounters& counters = engine.impl().kernels.counters();
    cache::CacheUsage usage = cache.usage();
    CacheStats stats;
    stats.layers = cache.layers();
    stats.entries = usage.entries;
    stats.bytes = usage.bytes;
    stats.limit_bytes = cache.limit_bytes();
    stats.memory_hits = counters.memory_hits;
    stats.disk_hits = counters.disk_hits;
    stats.compiles = counters.compiles;
    stats.rejected = cache.rejected() + counters.rejected;  // by our own checks, and by the driver
    stats.unreadable = std::move(usage.unreadable);
    return stats;
}

std::vector<CacheEntryInfo> cache_list(const Engine& engine) {
    std::vector<CacheProblem> unreadable;
    std::vector<CacheEntryInfo> entries = engine.impl().cache.list({}, &unreadable);
    cache::require_none(unreadable);
    return entries;
}

CacheEntryInfo cache_inspect(const Engine& engine, const std::string& key) { return engine.impl().cache.inspect(key); }

std::vector<CacheProblem> cache_verify(const Engine& engine) {
    std::vector<CacheProblem> problems;
    for (const cache::UnsoundFile& one : engine.impl().cache.verify()) problems.push_back({one.file, one.why});
    return problems;
}

std::uint64_t cache_clear(const Engine& engine) { return engine.impl().cache.clear(); }

void cache_count_use(const Engine& engine) {
    engine.impl().kernels.count_use();
    engine.impl().cache.write_use_counts();
}

}  // namespace smlora
