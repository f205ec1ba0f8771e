#include "cache/turns.hpp"

#include "cache/layer.hpp"
#include "util/files.hpp"
#include "util/lock.hpp"
#include "util/log.hpp"
#include "util/own_thread.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace smlora::cache {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds beat_interval{250};

/// Six beats that failed to come, as a machine may be busy. Once a wait was in vain, the next one is shorter: a holder
/// that was stopped has many keys' locks, and a lock server that knows only "taken" has all.
constexpr milliseconds longest_silence{1500};
constexpr milliseconds longest_silence_in_vain{400};

// Nothing wakes a waiter, so it asks again and again: soon at first, as a compile that is nearly done is common, and
// every 50 ms at last, which is little beside the half second of a compile.
constexpr milliseconds first_pause{2};
constexpr milliseconds longest_pause{50};

/// A byte of the lock file for each key: 60 bits of it, as offsets are positive 64-bit numbers. Two keys that share one
/// would only wait for each other.
std::int64_t lock_offset(const std::string& key) { return std::stoll(key.substr(0, 15), nullptr, 16); }

std::filesystem::path beat_file(const std::filesystem::path& root, const std::string& key) {
    // Named like a temporary file, so that upkeep sweeps what a dead holder leaves.
    return version_folder(root) / fmt::format("{}lock-{}", util::temporary_prefix, key);
}

/// When the holder gave its last beat, by the file server's clock; nothing when there is no beat.
std::optional<std::int64_t> last_beat(const Layer& layer, const std::filesystem::path& file) {
    // Opened, as a network file system may tell an old time without.
    const util::OpenFile opened(layer.files, folder_of(layer, file).at(file), O_RDONLY);
    util::FileStatus status;
    if (opened.error() != 0 || layer.files.status(opened.descriptor(), status) != 0) return std::nullopt;
    return status.modified;
}

class Beat {
 public:
    Beat(const Layer& layer, std::filesystem::path file) : layer_(layer), file_(std::move(file)) {
        beat();
        // Without a thread the beats stop, and other processes soon compile the kernel themselves.
        static_cast<void>(thread_.begin([this] {
            std::unique_lock lock(mutex_);
            while (!ended_.wait_for(lock, beat_interval, [this] { return end_; })) beat();
        }));
    }
    ~Beat() {
        // A child that was forked under the lock has neither the thread nor the lock.
        if (!origin_.is_this_process()) return;
        {
            const std::lock_guard lock(mutex_);
            end_ = true;
        }
        ended_.notify_all();
        thread_.finish();
        static_cast<void>(layer_.files.remove(folder_of(layer_, file_).at(file_)));
    }
    Beat(const Beat&) = delete;
    Beat& operator=(const Beat&) = delete;

 private:
    void beat() const {
        const Folder folder = folder_of(layer_, file_);
        const util::OpenFile made(layer_.files, folder.at(file_), O_WRONLY | O_CREAT, 0600);
        if (made.error() == 0) static_cast<void>(layer_.files.touch(folder.at(file_)));
    }

    const Layer& layer_;
    const std::filesystem::path file_;
    const util::Origin origin_;
    std::mutex mutex_;
    std::condition_variable ended_;
    bool end_ = false;  // guarded by mutex_
    util::OwnThread thread_;
};

}  // namespace

Turns::Turns(const Layer& layer, util::Logger& log) : layer_(layer), log_(log) {}

int Turns::take(const std::string& key, milliseconds patience, const std::function<bool()>& is_there,
                const std::function<void()>& work) {
    const std::filesystem::path beat = beat_file(layer_.root, key);
    const std::filesystem::path file = lock_file(layer_.root);
    std::optional<util::ByteLock> lock;
    lock.emplace(layer_.files, folder_of(layer_, file).at(file), lock_offset(key), milliseconds(0));
    if (lock->error() == -ENOENT) return -ENOENT;

    const bool waited = lock->error() == -EAGAIN;
    const auto begin = steady_clock::now();
    auto last_sign = begin;
    std::optional<std::int64_t> seen;
    for (auto pause = first_pause; lock->error() == -EAGAIN; pause = std::min(pause * 2, longest_pause)) {
        if (is_there && is_there()) {
            lock.reset();
            work();
            return 0;
        }
        const auto now = steady_clock::now();
        const std::optional<std::int64_t> last = last_beat(layer_, beat);
        if (last && last != seen) last_sign = now;
        seen = last;
        const milliseconds silence = in_vain_ ? longest_silence_in_vain : longest_silence;
        if (now - begin >= patience || now - last_sign >= silence) {
            in_vain_ = true;
            break;
        }
        std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(pause, patience - (now - begin)));
        lock->try_again();
    }
    if (!lock->held()) {
        log_.info(fmt::format("could not lock {} ({}); another process may do the same work", file.string(),
                              util::describe_error(lock->error())));
        lock.reset();
        work();
        return 0;
    }
    if (waited && is_there && !is_there() && !last_beat(layer_, beat)) {
        lock.reset();
        work();
        return 0;
    }
    if (waited) in_vain_ = false;
    const Beat alive(layer_, beat);
    work();
    return 0;
}

}  // namespace smlora::cache
