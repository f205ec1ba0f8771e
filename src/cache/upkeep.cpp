#include "cache/upkeep.hpp"

#include "util/files.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <tuple>
#include <utility>

namespace smlora::cache {
namespace {

/// A holder of the lock that has not swept for so long was stopped, or the lock server knows only "taken".
constexpr std::chrono::hours overdue{2};

/// Closer to now than this no time is from the future: the clock of files stands still for some milliseconds at a time.
constexpr std::chrono::nanoseconds slack = std::chrono::minutes(1);

/// Makes or touches the stamp, and tells its time.
std::int64_t stamp(const Layer& layer, FileClock& clock) {
    util::FileSystem& files = layer.files;
    const Folder folder(layer, version_folder(layer.root));
    const util::At file = folder.at(upkeep_file(layer.root));
    util::FileStatus status;
    const util::OpenFile made(files, file, O_WRONLY | O_CREAT, 0600);
    if (made.error() == 0 && files.touch(file) == 0 && files.status(file, status) == 0) clock.learn(status.modified);
    return clock.now();
}

}  // namespace

bool upkeep_is_older_than(std::chrono::nanoseconds interval, const Layer& layer, const FileClock& clock) {
    util::FileStatus status;
    return look_at(layer, upkeep_file(layer.root), status) != 0 || far_apart(clock.now(), status.modified, interval);
}

Upkeep::Upkeep(const Layer& layer, std::uint64_t limit, FileClock& clock, std::filesystem::path kept)
    : layer_(layer),
      limit_(limit),
      clock_(clock),
      kept_(std::move(kept)),
      lock_(layer.files, Folder(layer, version_folder(layer.root)).at(lock_file(layer.root)), upkeep_offset,
            std::chrono::milliseconds(0)),
      walk_(layer) {
    walk_.shuffle();
}

bool Upkeep::is_ours() const { return lock_.error() != -EAGAIN || upkeep_is_older_than(overdue, layer_, clock_); }

bool Upkeep::run(const std::function<bool()>& stop) {
    while (stage_ != Stage::done) {
        if (stop()) return false;
        switch (stage_) {
            case Stage::beginning:
                begin();
                stage_ = Stage::looking;
                break;
            case Stage::looking:
                if (walk_.step()) break;
                judge();
                stage_ = Stage::sweeping;
                break;
            case Stage::sweeping:
                if (leftovers_.empty()) {
                    stage_ = Stage::mending;
                    break;
                }
                if (layer_.files.remove(folder_of(layer_, leftovers_.back().file).at(leftovers_.back().file)) == 0) {
                    ++report_.swept;
                }
                leftovers_.pop_back();
                break;
            case Stage::mending:
                if (from_future_.empty()) {
                    stage_ = Stage::evicting;
                    break;
                }
                static_cast<void>(
                    layer_.files.touch(folder_of(layer_, from_future_.back().file).at(from_future_.back().file)));
                from_future_.pop_back();
                break;
            case Stage::evicting:
                if (report_.bytes <= target_ || victims_.empty()) {
                    count();
                    stage_ = Stage::done;
                    break;
                }
                if (free(victims_.back())) report_.bytes -= victims_.back().status.size;
                victims_.pop_back();
                break;
            case Stage::done:
                break;
        }
    }
    return true;
}

void Upkeep::finish_early(const std::function<bool()>& stop) {
    if (stage_ == Stage::looking) {
        whole_ = false;
        judge();
        stage_ = Stage::sweeping;
    }
    if (run(stop)) return;
    whole_ = false;
    count();
}

void Upkeep::count() {
    if (!whole_) return count_removed(layer_, clock_, freed_);
    static_cast<void>(change_count(layer_, clock_, [this](std::uint64_t count) {
        return report_.bytes + (count > count_at_start_ ? count - count_at_start_ : 0);
    }));
}

void Upkeep::begin() {
    // Written even if it stays the same: what is added to a count that nobody has counted is known from then on.
    count_at_start_ = change_count(layer_, clock_, [](std::uint64_t count) { return count; }).value_or(uncounted);
    began_ = stamp(layer_, clock_);
}

/// What of that which was looked at goes, and in which order.
void Upkeep::judge() {
    const std::int64_t now = clock_.now();
    for (StoredFile& file : walk_.contents.temporaries) {
        if (far_apart(now, file.status.modified, temporary_lifetime)) leftovers_.push_back(std::move(file));
    }
    for (auto* list : {&walk_.contents.entries, &walk_.contents.records}) {
        for (StoredFile& file : *list) {
            report_.bytes += file.status.size;
            if (file.status.modified > now + slack.count()) {
                from_future_.push_back(std::move(file));
            } else if (file.status.modified <= began_ && file.file != kept_) {
                victims_.push_back(std::move(file));
            }
        }
    }
    // A part of the layer has the same share of the limit.
    if (limit_ == 0 || report_.bytes == 0) return victims_.clear();
    const double bytes = static_cast<double>(report_.bytes);
    double all = bytes;
    if (!whole_) {
        all = count_at_start_ < uncounted ? static_cast<double>(count_at_start_) : bytes / walk_.share_of_kernels();
    }
    if (all <= static_cast<double>(limit_)) return victims_.clear();
    target_ = static_cast<std::uint64_t>(static_cast<double>(limit_ - limit_ / 10) * (bytes / all));
    // A kernel costs a compile and a record a measurement, so kernels go first.
    std::sort(victims_.begin(), victims_.end(), [](const StoredFile& a, const StoredFile& b) {
        const bool record_a = !a.folder.empty(), record_b = !b.folder.empty();
        return std::tie(record_b, b.status.modified, b.key) < std::tie(record_a, a.status.modified, a.key);
    });
}

bool Upkeep::free(const StoredFile& file) {
    const std::optional<int> error = remove_if_same(layer_, file.file, file.status);
    if (error == 0) {
        ++report_.evicted;
        freed_ += file.status.size;
    }
    return error && (*error == 0 || util::is_missing(*error));
}

}  // namespace smlora::cache
