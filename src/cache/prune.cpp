#include "cache/prune.hpp"

#include "util/files.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

namespace smlora::cache {
namespace {

/// Adds it to `problems` when that cannot be known; what verify would call unsound is for no architecture.
bool is_for(const std::string& arch, const StoredFile& entry, const Layer& layer, std::vector<CacheProblem>& problems) {
    const Reading reading = read_entry(layer, entry.key);
    const bool unsound = reading.why.empty() || reading.bad_content || refusal_of_file(reading.status);
    if (!reading.entry && !unsound) problems.push_back({entry.file, reading.why});
    return reading.entry && reading.entry->metadata.value("arch", nlohmann::json()) == arch;
}

}  // namespace

PruneReport prune(const Layer& layer, const PruneOptions& options, std::int64_t now) {
    using std::chrono::nanoseconds;
    PruneReport report;
    Contents contents = scan(layer);
    report.problems = std::move(contents.unreadable);
    report.left = contents.entries.size();
    for (const StoredFile& entry : contents.entries) report.left_bytes += entry.status.size;
    if (!options.arch.empty()) {
        std::erase_if(contents.entries,
                      [&](const StoredFile& entry) { return !is_for(options.arch, entry, layer, report.problems); });
    }
    std::sort(contents.entries.begin(), contents.entries.end(), [](const StoredFile& a, const StoredFile& b) {
        return std::tie(a.status.modified, a.key) < std::tie(b.status.modified, b.key);
    });
    std::uint64_t bytes = 0;
    for (const StoredFile& entry : contents.entries) bytes += entry.status.size;
    const bool all = !options.unused_for && !options.max_bytes;
    for (const StoredFile& entry : contents.entries) {
        const bool old = options.unused_for && now - entry.status.modified > nanoseconds(*options.unused_for).count();
        const bool over = options.max_bytes && bytes > *options.max_bytes;
        if (!all && !old && !over) break;
        const std::optional<int> error =
            options.dry_run ? std::optional(0) : remove_if_same(layer, entry.file, entry.status);
        if (!error) continue;  // it was used meanwhile
        if (*error != 0 && !util::is_missing(*error)) {
            report.problems.push_back({entry.file, "cannot be removed: " + util::describe_error(*error)});
            continue;
        }
        bytes -= entry.status.size;
        --report.left;
        report.left_bytes -= entry.status.size;
        if (*error != 0) continue;  // another process has removed it
        ++report.removed;
        report.removed_bytes += entry.status.size;
    }
    return report;
}

}  // namespace smlora::cache
