#include "cache/upkeep.hpp"

#include "cache/layer.hpp"
#include "util/files.hpp"

#include <fcntl.h>

#include <algorithm>

namespace smlora::cache {
namespace {

using std::chrono::nanoseconds;

std::int64_t now() {
    return std::chrono::duration_cast<nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

bool older_than(std::int64_t modified, nanoseconds age, std::int64_t at) { return at - modified > age.count(); }

/// Notes that the upkeep is done now, and tells the time as the file system has it: the clock of a file server may
/// differ from this machine's, and the ages of files go by the server's.
std::int64_t stamp(util::FileSystem& files, const std::filesystem::path& root) {
    const std::filesystem::path file = upkeep_file(root);
    util::FileStatus status;
    const util::OpenFile made(files, file, O_WRONLY | O_CREAT | O_NOFOLLOW, 0600);
    if (made.error() != 0 || files.touch(file) != 0 || files.status(file, status) != 0) return now();
    return status.modified;
}

}  // namespace

void mark_used(util::FileSystem& files, const std::filesystem::path& file, const util::FileStatus& status) {
    if (older_than(status.modified, touch_interval, now())) static_cast<void>(files.touch(file));
}

bool upkeep_is_due(util::FileSystem& files, const std::filesystem::path& root) {
    util::FileStatus status;
    return files.status(upkeep_file(root), status) != 0 || older_than(status.modified, touch_interval, now());
}

UpkeepReport upkeep(util::FileSystem& files, const std::filesystem::path& root, std::uint64_t limit) {
    UpkeepReport report;
    const std::int64_t at = stamp(files, root);
    Contents contents = scan(files, root);
    for (const StoredFile& temporary : contents.temporaries) {
        if (older_than(temporary.status.modified, temporary_lifetime, at) && files.remove(temporary.file) == 0) {
            ++report.swept;
        }
    }

    for (const StoredFile& entry : contents.entries) report.bytes += entry.status.size;
    if (report.bytes <= limit) return report;
    std::sort(contents.entries.begin(), contents.entries.end(), [](const StoredFile& a, const StoredFile& b) {
        return std::tie(a.status.modified, a.key) < std::tie(b.status.modified, b.key);
    });
    for (const StoredFile& entry : contents.entries) {
        if (report.bytes <= limit - limit / 10) break;
        // One that was read since the scan is in use after all.
        if (!remove_if_same(files, entry.file, entry.status)) continue;
        report.bytes -= entry.status.size;
        ++report.evicted;
    }
    return report;
}

}  // namespace smlora::cache
