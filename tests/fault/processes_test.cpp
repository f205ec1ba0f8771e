// Several processes and one cache. They are forked from a process with one thread, as fork demands.
#include "cache/cache.hpp"
#include "cache/layer.hpp"
#include "fault/process.hpp"
#include "support/sanitizer.hpp"
#include "unit/cache/fixtures.hpp"
#include "util/lock.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <thread>

namespace smlora::cache {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::Process;
using testing::sample_entry;
using testing::sample_key;
using testing::Signal;

class Processes : public testing::CacheTest {
 protected:
    CacheOptions patient(milliseconds patience) {
        CacheOptions chosen = options();
        chosen.lock_patience = patience;
        return chosen;
    }

    /// A process that takes the lock of key 1, says so and keeps it until it is ended.
    std::function<int()> holder(const Signal& held) {
        return [&] {
            Cache cache(options(), log.logger);
            cache.with_lock(sample_key(1), [&] {
                held.give();
                for (;;) ::pause();
            });
            return 0;
        };
    }
};

TEST_F(Processes, OfManyThatWantOneKernelOneCompilesIt) {
    constexpr int count = 8;
    constexpr int keys = 3;
    const Signal start;
    const std::filesystem::path compiles = scratch.path() / "compiles";
    const auto body = [&] {
        start.take();
        Cache cache(patient(seconds(60)), log.logger);
        for (int key = 0; key < keys; ++key) {
            cache.with_lock(sample_key(key), [&] {
                if (cache.load(sample_key(key))) return;
                std::ofstream(compiles, std::ios::app) << key;  // one short append is one write
                std::this_thread::sleep_for(milliseconds(30));
                cache.store(sample_key(key), sample_entry(key));
            });
            const auto entry = cache.load(sample_key(key));
            if (!entry || entry->cubin != sample_entry(key).cubin) return 1;
        }
        return cache.rejected() == 0 && log.warnings().empty() ? 0 : 2;
    };
    std::vector<std::unique_ptr<Process>> processes;
    for (int i = 0; i < count; ++i) processes.push_back(std::make_unique<Process>(body));
    start.give(count);
    for (auto& process : processes) EXPECT_EQ(process->wait(), 0);
    EXPECT_EQ(testing::contents_of(compiles), "012");
    EXPECT_EQ(testing::files_below(root()).size(), 3u + keys) << "the tag, the lock, the stamp and the entries";
}

TEST_F(Processes, AHolderThatIsKilledLetsTheNextOneIn) {
    const Signal held, waiting;
    Process first(holder(held));
    held.take();
    Process second([&] {
        Cache cache(patient(seconds(30)), log.logger);
        waiting.give();
        bool ran = false;
        cache.with_lock(sample_key(1), [&] { ran = true; });
        return ran && log.lines(LogLevel::info).empty() ? 0 : 1;
    });
    waiting.take();
    std::this_thread::sleep_for(milliseconds(50));
    const auto killed = steady_clock::now();
    first.kill();
    EXPECT_EQ(second.wait(), 0);
    EXPECT_LT(steady_clock::now() - killed, seconds(20));
    EXPECT_EQ(first.wait(), -SIGKILL);
}

TEST_F(Processes, AHolderThatHangsCostsABoundedWait) {
    const Signal held;
    Process first(holder(held));
    held.take();
    first.stop();
    Cache cache(patient(milliseconds(150)), log.logger);
    const auto start = steady_clock::now();
    int runs = 0;
    cache.with_lock(sample_key(1), [&] { ++runs; });
    const auto waited = steady_clock::now() - start;
    EXPECT_EQ(runs, 1);
    EXPECT_GE(waited, milliseconds(150));
    EXPECT_LT(waited, seconds(20));
    ASSERT_EQ(log.lines(LogLevel::info).size(), 1u);
    EXPECT_NE(log.lines(LogLevel::info)[0].find("could not lock"), std::string::npos);
    EXPECT_NE(log.lines(LogLevel::info)[0].find("another process may do the same work"), std::string::npos);
}

TEST_F(Processes, AHolderThatIsStoppedIsWaitedForTwoSecondsOnceAtMost) {
    constexpr int keys = 3;
    const Signal held;
    std::vector<std::unique_ptr<Process>> holders;
    for (int key = 0; key < keys; ++key) {
        holders.push_back(std::make_unique<Process>([&, key] {
            Cache cache(options(), log.logger);
            cache.with_lock(sample_key(key), [&] {
                held.give();
                for (;;) ::pause();
            });
            return 0;
        }));
        held.take();
        holders.back()->stop();
    }
    Cache cache(patient(seconds(30)), log.logger);
    for (int key = 0; key < keys; ++key) {
        const auto start = steady_clock::now();
        int runs = 0;
        cache.with_lock(sample_key(key), [&] { ++runs; });
        EXPECT_EQ(runs, 1);
        EXPECT_LT(steady_clock::now() - start, key == 0 ? milliseconds(2000) : milliseconds(1000)) << key;
    }
}

TEST_F(Processes, AHolderThatWorksIsWaitedForLongerThanThat) {
    const Signal held;
    Process first([&] {
        Cache cache(options(), log.logger);
        cache.with_lock(sample_key(1), [&] {
            held.give();
            std::this_thread::sleep_for(milliseconds(2500));
            cache.store(sample_key(1), sample_entry(1));
        });
        return 0;
    });
    held.take();
    Cache cache(patient(seconds(30)), log.logger);
    bool there = false;
    cache.with_lock(
        sample_key(1), [&] { there = cache.load(sample_key(1)).has_value(); }, std::nullopt,
        [&] { return cache.contains(sample_key(1)); });
    EXPECT_TRUE(there);
    EXPECT_EQ(first.wait(), 0);
}

TEST_F(Processes, AWaiterTakesTheEntryAsSoonAsItIsThere) {
    const Signal held;
    Process first([&] {
        Cache cache(options(), log.logger);
        cache.with_lock(sample_key(1), [&] {
            cache.store(sample_key(1), sample_entry(1));
            held.give();
            for (;;) ::pause();
        });
        return 0;
    });
    held.take();
    Cache cache(patient(seconds(30)), log.logger);
    const auto start = steady_clock::now();
    bool there = false;
    cache.with_lock(
        sample_key(1), [&] { there = cache.load(sample_key(1)).has_value(); }, std::nullopt,
        [&] { return cache.contains(sample_key(1)); });
    EXPECT_TRUE(there);
    EXPECT_LT(steady_clock::now() - start, milliseconds(1000));
    EXPECT_TRUE(log.lines(LogLevel::info).empty());
}

TEST_F(Processes, AChildThatOutlivesTheHolderDoesNotKeepItsLock) {
    const Signal held;
    int pids[2];
    ASSERT_EQ(::pipe(pids), 0);
    Process first([&] {
        Cache cache(options(), log.logger);
        cache.with_lock(sample_key(1), [&] {
            const ::pid_t child = ::fork();
            if (child == 0) {
                for (;;) ::pause();
            }
            if (::write(pids[1], &child, sizeof child) != sizeof child) ::_exit(98);
            held.give();
            for (;;) ::pause();
        });
        return 0;
    });
    held.take();
    ::pid_t child = -1;
    ASSERT_EQ(::read(pids[0], &child, sizeof child), static_cast<::ssize_t>(sizeof child));
    first.kill();
    EXPECT_EQ(first.wait(), -SIGKILL);
    Cache cache(patient(seconds(30)), log.logger);
    int runs = 0;
    cache.with_lock(sample_key(1), [&] { ++runs; });
    ::kill(child, SIGKILL);
    EXPECT_EQ(runs, 1);
    EXPECT_TRUE(log.lines(LogLevel::info).empty()) << "the lock was had";
    ::close(pids[0]);
    ::close(pids[1]);
}

TEST_F(Processes, AChildThatLeavesTheWorkGivesTheLockOfItsParentToNobody) {
    Cache cache(patient(seconds(30)), log.logger);
    cache.with_lock(sample_key(1), [&] {
        std::optional<util::ByteLock> lock;
        lock.emplace(util::real_file_system(), util::At(lock_file(root())), 0, milliseconds(0));
        Process child([&] {
            lock.reset();
            return 0;
        });
        EXPECT_EQ(child.wait(), 0);
        EXPECT_FALSE(util::ByteLock(util::real_file_system(), util::At(lock_file(root())), 0, milliseconds(0)).held());
    });
}

TEST_F(Processes, WhatTheFileServerShowsLateIsMadeSideBySide) {
    constexpr int count = 8;
    constexpr milliseconds work{300};
    const Signal start;
    std::vector<std::unique_ptr<Process>> processes;
    for (int i = 0; i < count; ++i) {
        processes.push_back(std::make_unique<Process>([&] {
            Cache cache(patient(seconds(60)), log.logger);
            start.take();
            cache.with_lock(
                sample_key(1), [&] { std::this_thread::sleep_for(work); }, std::nullopt, [] { return false; });
            return 0;
        }));
    }
    const auto began = steady_clock::now();
    start.give(count);
    for (auto& process : processes) EXPECT_EQ(process->wait(), 0);
    EXPECT_LT(steady_clock::now() - began, 4 * work) << "one after the other it is eight times";
}

TEST_F(Processes, OfThoseThatWaitForOneThatDiesOneTakesOver) {
    constexpr int count = 6;
    const std::filesystem::path compiles = scratch.path() / "compiles";
    const Signal held, waiting;
    Process first(holder(held));
    held.take();
    std::vector<std::unique_ptr<Process>> processes;
    for (int i = 0; i < count; ++i) {
        processes.push_back(std::make_unique<Process>([&] {
            Cache cache(patient(seconds(60)), log.logger);
            const auto compile = [&] {
                if (cache.load(sample_key(1))) return;
                std::ofstream(compiles, std::ios::app) << 'x';
                std::this_thread::sleep_for(milliseconds(200));
                cache.store(sample_key(1), sample_entry(1));
            };
            waiting.give();
            cache.with_lock(sample_key(1), compile, std::nullopt, [&] { return cache.contains(sample_key(1)); });
            return cache.load(sample_key(1)) ? 0 : 1;
        }));
    }
    for (int i = 0; i < count; ++i) waiting.take();
    first.kill();
    for (auto& process : processes) EXPECT_EQ(process->wait(), 0);
    EXPECT_EQ(testing::contents_of(compiles), "x");
}

TEST_F(Processes, OtherKeysAreNotHeldUp) {
    const Signal held;
    Process first(holder(held));
    held.take();
    Cache cache(patient(seconds(30)), log.logger);
    int runs = 0;
    for (const int number : {0, 2, 257}) cache.with_lock(sample_key(number), [&] { ++runs; });
    EXPECT_EQ(runs, 3);
    EXPECT_TRUE(log.lines(LogLevel::info).empty()) << "every lock was had";
}

TEST_F(Processes, AForkedChildDoesNotKeepTheLockOfItsParent) {
    const Signal done;
    Cache cache(patient(seconds(30)), log.logger);
    std::unique_ptr<Process> child;
    cache.with_lock(sample_key(1), [&] {
        child = std::make_unique<Process>([&] {
            done.take();
            return 0;
        });
    });
    int runs = 0;
    cache.with_lock(sample_key(1), [&] { ++runs; });
    EXPECT_EQ(runs, 1);
    EXPECT_TRUE(log.lines(LogLevel::info).empty()) << "the lock was had";
    done.give();
    EXPECT_EQ(child->wait(), 0);
}

TEST_F(Processes, WritersThatAreKilledAtAnyMomentLeaveSoundEntriesOnly) {
    std::mt19937 random(7);
    for (int round = 0; round < 15; ++round) {
        Process writer([&] {
            Cache cache(options(), log.logger);
            for (int number = 0;; ++number) cache.store(sample_key(number % 4), sample_entry(number % 4, 200'000));
            return 0;
        });
        std::this_thread::sleep_for(std::chrono::microseconds(3000 + random() % 20000));
        writer.kill();
        EXPECT_EQ(writer.wait(), -SIGKILL);
        Cache reader(options(), log.logger);
        EXPECT_TRUE(reader.verify().empty());
    }
    Cache cache(options(), log.logger);
    EXPECT_TRUE(cache.store(sample_key(0), sample_entry(0)));
    EXPECT_GE(cache.list().size(), 1u);
}

TEST_F(Processes, ReadersAndWritersAndEvictionsDoNotDisturbEachOther) {
    CacheOptions small = options();
    small.limit_bytes = 40'000;
    std::vector<std::unique_ptr<Process>> processes;
    for (unsigned seed = 0; seed < 4; ++seed) {
        processes.push_back(std::make_unique<Process>([&small, seed, this] {
            Cache cache(small, log.logger);
            std::mt19937 random(seed);
            for (int round = 0; round < 60; ++round) {
                const int number = static_cast<int>(random() % 12);
                const auto entry = cache.load(sample_key(number));
                if (entry && entry->cubin != sample_entry(number, 5000).cubin) return 1;
                if (!entry && !cache.store(sample_key(number), sample_entry(number, 5000))) return 2;
            }
            return cache.rejected() == 0 && log.warnings().empty() ? 0 : 3;
        }));
    }
    for (auto& process : processes) EXPECT_EQ(process->wait(), 0);
    Cache cache(small, log.logger);
    EXPECT_TRUE(cache.verify().empty());
    EXPECT_LE(cache.usage().bytes, 40'000u + 4 * 5200u);
}

TEST_F(Processes, ThatExceedTheLimitAtOnceEvictWhatOneWould) {
    if (smlora::test::sanitized) GTEST_SKIP() << "counts what is evicted within seconds";
    constexpr int writers = 16;
    constexpr int before = 400;
    const std::uint64_t size = encode_for(sample_key(1), sample_entry(1, 2000)).size();
    for (int number = 0; number < before; ++number) {
        const std::filesystem::path file = entry_file(root(), sample_key(number));
        testing::write_file(file, encode_for(sample_key(number), sample_entry(number % 9, 2000)));
        testing::set_age(file, std::chrono::hours(1 + number));
    }
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
    CacheOptions small = options();
    small.limit_bytes = before * size * 100 / 105;
    const Signal start;
    std::vector<std::unique_ptr<Process>> processes;
    for (int i = 0; i < writers; ++i) {
        processes.push_back(std::make_unique<Process>([&, i] {
            Cache cache(small, log.logger);
            start.take();
            return cache.store(sample_key(1000 + i), sample_entry(i % 9, 2000)) ? 0 : 1;
        }));
    }
    start.give(writers);
    for (auto& process : processes) EXPECT_EQ(process->wait(), 0);
    Cache cache(small, log.logger);
    EXPECT_GE(cache.usage().bytes, *small.limit_bytes * 85 / 100);
    EXPECT_LE(cache.usage().bytes, *small.limit_bytes + writers * (size + 10));
    for (int i = 0; i < writers; ++i) EXPECT_TRUE(cache.load(sample_key(1000 + i)).has_value()) << "acknowledged " << i;
}

TEST_F(Processes, ThatWriteAllTheTimeExceedTheLimitByOneEntryEach) {
    if (smlora::test::sanitized) GTEST_SKIP() << "counts what is evicted within seconds";
    constexpr int writers = 32;
    constexpr std::uint64_t limit = 4'000'000;
    const std::uint64_t size = encode_for(sample_key(1), sample_entry(1, 20'000)).size() + 10;
    CacheOptions small = options();
    small.limit_bytes = limit;
    std::vector<std::unique_ptr<Process>> processes;
    for (int i = 0; i < writers; ++i) {
        processes.push_back(std::make_unique<Process>([&, i] {
            Cache cache(small, log.logger);
            const auto end = steady_clock::now() + seconds(3);
            for (int number = 0; steady_clock::now() < end; ++number) {
                const int key = i * 100'000 + number;
                if (!cache.store(sample_key(key), sample_entry(i % 9, 20'000))) return 1;
            }
            return 0;
        }));
    }
    std::uint64_t largest = 0;
    std::uint64_t smallest_when_full = limit;
    bool was_full = false;
    Cache cache(small, log.logger);
    for (const auto end = steady_clock::now() + milliseconds(2900); steady_clock::now() < end;) {
        const std::uint64_t bytes = cache.usage().bytes;
        largest = std::max(largest, bytes);
        was_full |= bytes > limit * 95 / 100;
        if (was_full) smallest_when_full = std::min(smallest_when_full, bytes);
        std::this_thread::sleep_for(milliseconds(40));
    }
    for (auto& process : processes) EXPECT_EQ(process->wait(), 0);
    RecordProperty("largest", static_cast<int>(largest));
    EXPECT_TRUE(was_full);
    EXPECT_LE(largest, limit + writers * size);
    EXPECT_LE(cache.usage().bytes, limit + writers * size);
    EXPECT_GE(smallest_when_full, limit * 85 / 100);
    EXPECT_TRUE(cache.verify().empty());
}

}  // namespace
}  // namespace smlora::cache
