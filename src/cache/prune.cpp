#include "cache/prune.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

namespace smlora::cache {
namespace {

bool is_for(util::FileSystem& files, const std::filesystem::path& root, const std::string& key,
            const std::string& arch) {
    const Reading reading = read_entry(files, root, key);
    return reading.entry && reading.entry->metadata.value("arch", nlohmann::json()) == arch;
}

}  // namespace

PruneReport prune(util::FileSystem& files, const std::filesystem::path& root, const PruneOptions& options,
                  std::int64_t now) {
    using std::chrono::nanoseconds;
    PruneReport report;
    Contents contents = scan(files, root);
    report.problems = std::move(contents.unreadable);
    report.left = contents.entries.size();
    for (const StoredFile& entry : contents.entries) report.left_bytes += entry.status.size;
    if (!options.arch.empty()) {
        std::erase_if(contents.entries,
                      [&](const StoredFile& entry) { return !is_for(files, root, entry.key, options.arch); });
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
        bytes -= entry.status.size;
        if (!options.dry_run && !remove_if_same(files, entry.file, entry.status)) {
            util::FileStatus now_there;
            if (files.status(entry.file, now_there) == 0 && now_there.same_file(entry.status)) {
                report.problems.push_back({entry.file, "cannot be removed"});
            }
            continue;
        }
        ++report.removed;
        report.removed_bytes += entry.status.size;
        --report.left;
        report.left_bytes -= entry.status.size;
    }
    return report;
}

}  // namespace smlora::cache
