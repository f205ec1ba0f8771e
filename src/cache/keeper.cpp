#include "cache/keeper.hpp"

#include "cache/byte_count.hpp"
#include "util/counted.hpp"
#include "util/log.hpp"

#include <fmt/format.h>

#include <utility>

namespace smlora::cache {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// The most that a store spends on upkeep. It waits as long for the upkeep of another process or thread: if writers
/// went on at once, they would store many entries before one is evicted.
constexpr milliseconds longest{40};

/// From one look at whether the other upkeep is done to the next.
constexpr milliseconds pause{8};

/// If a store leaves more than the limit while another process evicts, the next store waits this long at most, and only
/// if that eviction began within `young`: a slow file server is not waited for.
constexpr milliseconds longest_for_room{1500};
constexpr std::chrono::seconds young{1};

/// The end of a process waits this long at most for its upkeep. Else processes that store something and end, one after
/// the other, might all begin one, and none would come to evict. What it has not looked at by the first of the two is
/// left to later processes, and it evicts among the rest.
constexpr milliseconds longest_look_at_the_end{600};
constexpr milliseconds longest_at_the_end{1000};

/// Use is written at most this often while less than half of the limit is taken, so that a hit costs no write, and so
/// often beyond, where the order of use decides what goes next.
constexpr std::chrono::hours rare_touch{1};
constexpr std::chrono::seconds frequent_touch{1};

/// The count is looked at this often to know which of the two holds.
constexpr std::chrono::seconds count_lifetime{1};

}  // namespace

Keeper::Keeper(const Layer& layer, std::uint64_t limit, FileClock& clock, util::Logger& log,
               std::atomic<std::uint64_t>& evictions)
    : layer_(layer), limit_(limit), clock_(clock), log_(log), evictions_(evictions) {}

Keeper::~Keeper() {
    const auto start = steady_clock::now();
    const auto waited = [&](milliseconds longest_wait) { return steady_clock::now() >= start + longest_wait; };
    while (thread_.is_there() && running_ && !waited(longest_at_the_end)) {
        if (waited(longest_look_at_the_end)) ending_ = true;
        std::this_thread::sleep_for(pause);
    }
    ending_ = true;
    stop_ = true;
    thread_.finish();
}

bool Keeper::is_due(std::optional<std::uint64_t> count) const {
    // Without a count n processes overshoot the limit by n sixteenths at most.
    const bool full = count ? *count > limit_ : uncounted_bytes_ > limit_ / 16;
    return (limit_ != 0 && full) || upkeep_is_older_than(upkeep_interval, layer_, clock_);
}

void Keeper::report(const Upkeep& done) const {
    evictions_ += done.report().evicted;
    if (done.report().evicted + done.report().swept == 0) return;
    log_.debug(fmt::format("cache {}: {} bytes; evicted {}, removed {}", layer_.root.string(), done.report().bytes,
                           util::counted(done.report().evicted, "file"),
                           util::counted(done.report().swept, "temporary file")));
}

bool Keeper::is_filling() {
    if (limit_ == 0) return false;
    const std::int64_t now =
        std::chrono::duration_cast<std::chrono::nanoseconds>(steady_clock::now().time_since_epoch()).count();
    const std::int64_t before = looked_at_count_;
    if (before == INT64_MIN || far_apart(now, before, count_lifetime)) {
        looked_at_count_ = now;
        filling_ = read_count(layer_) > limit_ / 2;
    }
    return filling_;
}

void Keeper::used(const std::filesystem::path& file, const util::FileStatus& status) {
    const std::chrono::nanoseconds interval = is_filling() ? std::chrono::nanoseconds(frequent_touch) : rare_touch;
    if (!far_apart(clock_.now(), status.modified, interval)) return;
    const Folder folder = folder_of(layer_, file);
    if (layer_.files.touch(folder.at(file)) != 0) return;
    // Once: from now on the time is known.
    util::FileStatus touched;
    if (!clock_.is_known() && layer_.files.status(folder.at(file), touched) == 0) clock_.learn(touched.modified);
}

void Keeper::wait_for_room() const {
    if (!ahead_ || running_) return;
    const auto end = steady_clock::now() + longest_for_room;
    while (read_count(layer_) > limit_ && !upkeep_is_older_than(young, layer_, clock_) && steady_clock::now() < end) {
        std::this_thread::sleep_for(pause);
    }
}

void Keeper::stored(const std::filesystem::path& file, std::uint64_t bytes) {
    const auto count = change_count(layer_, clock_, [bytes](std::uint64_t before) { return before + bytes; });
    ahead_ = false;
    if (!count) uncounted_bytes_ += bytes;
    if (!is_due(count)) return;

    const auto end = steady_clock::now() + longest;
    std::unique_ptr<Upkeep> upkeep;
    std::unique_lock lock(mutex_, std::defer_lock);
    for (;; std::this_thread::sleep_for(pause)) {
        if (lock.owns_lock() || lock.try_lock()) {
            if (!running_) upkeep = std::make_unique<Upkeep>(layer_, limit_, clock_, file);
            if (upkeep && upkeep->is_ours()) break;
            upkeep.reset();
        }
        if (steady_clock::now() >= end) {
            ahead_ = count && limit_ != 0 && *count > limit_;
            return;
        }
        if (!is_due(count ? std::optional(read_count(layer_)) : std::nullopt)) return;
    }
    thread_.finish();
    // Somebody else may have done it meanwhile.
    if (!is_due(count ? std::optional(read_count(layer_)) : std::nullopt)) return;
    uncounted_bytes_ = 0;
    if (upkeep->run([end] { return steady_clock::now() >= end; })) return report(*upkeep);
    running_ = true;
    const bool begun = thread_.begin([this, rest = std::move(upkeep)]() mutable {
        if (!rest->run([this] { return ending_.load(); })) rest->finish_early([this] { return stop_.load(); });
        report(*rest);
        rest.reset();
        running_ = false;
    });
    // Without a thread the next store starts the upkeep again.
    if (!begun) running_ = false;
}

void Keeper::removed(std::uint64_t bytes) { count_removed(layer_, clock_, bytes); }

void Keeper::finish() {
    const std::lock_guard lock(mutex_);
    thread_.finish();
}

std::int64_t Keeper::now() {
    if (!clock_.is_known()) {
        static_cast<void>(change_count(layer_, clock_, [](std::uint64_t count) { return count; }));
    }
    return clock_.now();
}

}  // namespace smlora::cache
