// The promises of docs/reliability.md by numbers: kills and stampedes. A short run belongs to the tests; `tests/soak`
// runs as much as the page says.
#include "cache/cache.hpp"
#include "cache/layer.hpp"
#include "fault/process.hpp"
#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <thread>

namespace smlora::cache {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::Process;
using testing::sample_entry;
using testing::sample_key;
using testing::Signal;

/// Whether all of it was asked for.
bool is_whole() { return std::getenv("SMLORA_SOAK") != nullptr; }

int times(int short_run, int whole) { return is_whole() ? whole : short_run; }

/// No call of the cache may hold a training step up for longer. The short run shares its machine with other tests and
/// does not measure.
constexpr milliseconds longest_stall{2000};
bool is_stall(long waited) { return is_whole() && waited > longest_stall.count(); }

class Soak : public testing::CacheTest {
 protected:
    CacheOptions limited(std::uint64_t bytes) {
        CacheOptions chosen = options();
        chosen.limit_bytes = bytes;
        return chosen;
    }
};

/// Milliseconds that `action` takes.
template <class Action>
long milliseconds_of(const Action& action) {
    const auto begin = steady_clock::now();
    action();
    return duration_cast<milliseconds>(steady_clock::now() - begin).count();
}

TEST_F(Soak, WritersAreKilledWhileOthersReadAndEvict) {
    const int kills = times(60, 1000);
    constexpr int at_once = 3;
    constexpr int keys = 60;
    constexpr std::uint64_t limit = 3'000'000;
    const auto entry_of = [](int number) {
        return sample_entry(number, 20'000U + static_cast<unsigned>(number) * 1000U);
    };
    std::mt19937 random(11);

    const Signal stop;
    std::vector<std::unique_ptr<Process>> readers;
    for (unsigned seed = 0; seed < 2; ++seed) {
        readers.push_back(std::make_unique<Process>([&, seed] {
            static volatile std::sig_atomic_t ended = 0;
            std::signal(SIGTERM, [](int) { ended = 1; });
            Cache cache(limited(limit), log.logger);
            std::mt19937 own(seed);
            long worst = 0;
            while (ended == 0) {
                const int number = static_cast<int>(own() % keys);
                std::optional<KernelEntry> entry;
                worst = std::max(worst, milliseconds_of([&] { entry = cache.load(sample_key(number)); }));
                if (entry && entry->cubin != entry_of(number).cubin) return 1;
            }
            if (cache.rejected() != 0) return 2;
            return is_stall(worst) ? 3 : 0;
        }));
    }

    const auto writer = [&](unsigned seed) {
        return std::make_unique<Process>([&, seed] {
            Cache cache(limited(limit), log.logger);
            std::mt19937 own(seed);
            for (;;) {
                const int number = static_cast<int>(own() % keys);
                cache.with_lock(sample_key(number), [&] { cache.store(sample_key(number), entry_of(number)); });
            }
            return 0;
        });
    };
    std::vector<std::unique_ptr<Process>> writers;
    for (unsigned i = 0; i < at_once; ++i) writers.push_back(writer(i));
    for (int kill = 0; kill < kills; ++kill) {
        std::this_thread::sleep_for(milliseconds(3 + random() % 60));
        auto& victim = writers[static_cast<std::size_t>(kill % at_once)];
        victim->kill();
        ASSERT_EQ(victim->wait(), -SIGKILL);
        victim = writer(100U + static_cast<unsigned>(kill));
        if (kill % 50 == 49) {
            EXPECT_TRUE(Cache(limited(limit), log.logger).verify().empty()) << "after " << kill + 1 << " kills";
        }
    }
    writers.clear();
    for (auto& reader : readers) {
        reader->end();
        EXPECT_EQ(reader->wait(), 0) << "1: a wrong entry, 2: an unsound one, 3: a stall";
    }

    Cache cache(limited(limit), log.logger);
    EXPECT_TRUE(cache.verify().empty());
    const std::uint64_t largest = encode_for(sample_key(keys - 1), entry_of(keys - 1)).size();
    EXPECT_LE(cache.usage().bytes, limit + at_once * largest);
    // What the dead left goes within hours.
    for (const StoredFile& leftover : scan({util::real_file_system(), root()}).temporaries) {
        testing::set_age(leftover.file, std::chrono::hours(2));
    }
    std::filesystem::remove(upkeep_file(root()));
    EXPECT_TRUE(cache.store(sample_key(0), entry_of(0)));
    const auto left = [&] { return scan({util::real_file_system(), root()}).temporaries.size(); };
    for (int tries = 0; left() > 0 && tries < 100; ++tries) std::this_thread::sleep_for(milliseconds(20));
    EXPECT_EQ(left(), 0u);
}

TEST_F(Soak, ManyProcessesAndThreadsWantTheSameKernels) {
    const int count = times(8, 64);
    const int threads = times(4, 8);
    constexpr int keys = 20;
    constexpr milliseconds compile_time{30};
    const std::filesystem::path compiles = scratch.path() / "compiles";
    const std::filesystem::path waits = scratch.path() / "waits";
    const Signal start;
    const auto body = [&] {
        start.take();
        Cache cache(options(), log.logger);
        std::atomic<int> wrong{0};
        std::atomic<long> worst{0};
        std::vector<std::thread> askers;
        for (int thread = 0; thread < threads; ++thread) {
            askers.emplace_back([&] {
                for (int key = 0; key < keys; ++key) {
                    const auto is_there = [&] { return cache.contains(sample_key(key)); };
                    const long waited = milliseconds_of([&] {
                        if (cache.load(sample_key(key))) return;
                        cache.with_lock(
                            sample_key(key),
                            [&] {
                                if (cache.load(sample_key(key))) return;
                                std::ofstream(compiles, std::ios::app) << 'x';  // one short append is one write
                                std::this_thread::sleep_for(compile_time);
                                cache.store(sample_key(key), sample_entry(key, 40'000));
                            },
                            std::nullopt, is_there);
                    });
                    for (long before = worst; before < waited && !worst.compare_exchange_weak(before, waited);) {
                    }
                    const auto entry = cache.load(sample_key(key));
                    if (!entry || entry->cubin != sample_entry(key, 40'000).cubin) ++wrong;
                }
            });
        }
        for (std::thread& asker : askers) asker.join();
        std::ofstream(waits, std::ios::app) << worst << '\n' << std::flush;
        return wrong == 0 && cache.rejected() == 0 ? 0 : 1;
    };
    std::vector<std::unique_ptr<Process>> processes;
    for (int i = 0; i < count; ++i) processes.push_back(std::make_unique<Process>(body));
    start.give(count);
    for (auto& process : processes) EXPECT_EQ(process->wait(), 0);
    EXPECT_EQ(testing::contents_of(compiles).size(), static_cast<std::size_t>(keys));
    std::ifstream all(waits);
    long worst = 0;
    for (long wait; all >> wait;) worst = std::max(worst, wait);
    RecordProperty("longest_wait_ms", static_cast<int>(worst));
    EXPECT_FALSE(is_stall(worst)) << worst << " ms";
}

}  // namespace
}  // namespace smlora::cache
