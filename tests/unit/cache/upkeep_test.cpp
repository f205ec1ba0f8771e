#include "cache/upkeep.hpp"

#include "fault/fault_file_system.hpp"
#include "unit/cache/fixtures.hpp"
#include "util/lock.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <thread>
#include <utility>

namespace smlora::cache {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using testing::sample_entry;
using testing::sample_key;

class Upkeep : public testing::CacheTest {
 protected:
    static std::uint64_t entry_size() { return encode_for(sample_key(1), sample_entry(1, 1000)).size(); }

    CacheOptions limited_to(std::uint64_t bytes) {
        CacheOptions chosen = options();
        chosen.limit_bytes = bytes;
        return chosen;
    }

    [[nodiscard]] bool exists(int number) const {
        return std::filesystem::exists(entry_file(root(), sample_key(number)));
    }

    void store_aged(Cache& cache, int number, std::chrono::seconds age) {
        ASSERT_TRUE(cache.store(sample_key(number), sample_entry(number % 9, 1000)));
        testing::set_age(entry_file(root(), sample_key(number)), age);
    }
};

TEST_F(Upkeep, BelowTheLimitEverythingStays) {
    Cache cache(limited_to(10 * entry_size()), log.logger);
    for (int number = 0; number < 10; ++number) store_aged(cache, number, hours(1000));
    EXPECT_EQ(cache.usage().entries, 10u);
    EXPECT_EQ(cache.usage().bytes, 10 * entry_size());
}

TEST_F(Upkeep, BeyondTheLimitTheEntriesUnusedForLongestGo) {
    Cache cache(limited_to(10 * entry_size()), log.logger);
    // The higher the number, the longer unused; each stays within the limit until the eleventh.
    for (int number = 0; number < 10; ++number) store_aged(cache, number, hours(number + 1));
    ASSERT_TRUE(cache.store(sample_key(10), sample_entry(1, 1000)));
    cache.finish_eviction();
    // Down to nine tenths: two of eleven go.
    for (int number = 0; number <= 10; ++number) EXPECT_EQ(exists(number), number != 8 && number != 9) << number;
    EXPECT_EQ(cache.usage().bytes, 9 * entry_size());
}

TEST_F(Upkeep, AHitSavesAnEntry) {
    Cache cache(limited_to(4 * entry_size()), log.logger);
    for (int number = 0; number < 4; ++number) store_aged(cache, number, hours(10 - number));
    ASSERT_TRUE(cache.load(sample_key(0)).has_value());
    ASSERT_TRUE(cache.store(sample_key(4), sample_entry(4, 1000)));
    cache.finish_eviction();
    EXPECT_TRUE(exists(0));
    EXPECT_FALSE(exists(1));
    EXPECT_TRUE(exists(4));
}

TEST_F(Upkeep, ManyStoresNeverExceedTheLimitByMuch) {
    const std::uint64_t limit = 20 * entry_size();
    Cache cache(limited_to(limit), log.logger);
    for (int number = 0; number < 60; ++number) {
        ASSERT_TRUE(cache.store(sample_key(number), sample_entry(number % 9, 1000)));
        ASSERT_LE(cache.usage().bytes, limit + limit / 16 + entry_size());
    }
    EXPECT_TRUE(exists(59));
    EXPECT_FALSE(exists(0));
}

TEST_F(Upkeep, AnEntryBeyondTheLimitIsNotStored) {
    Cache cache(limited_to(entry_size() - 1), log.logger);
    EXPECT_FALSE(cache.store(sample_key(1), sample_entry(1, 1000)));
    ASSERT_EQ(log.warnings().size(), 1u);
    EXPECT_NE(log.warnings()[0].find("exceeds the limit"), std::string::npos);
    EXPECT_EQ(cache.usage().entries, 0u);
}

TEST_F(Upkeep, WhatIsUsedSurvivesWhatIsNotWithinTheHour) {
    constexpr int count = 100, hot = 20;
    Cache filler(options(), log.logger);
    for (int number = 0; number < count; ++number)
        store_aged(filler, number, minutes(50) - std::chrono::seconds(9 * number));
    const CacheOptions full = limited_to(count * entry_size());
    for (int number = count; number < count + 60; ++number) {
        // Each in a process of its own.
        for (int used = 0; used < hot; ++used) {
            ASSERT_TRUE(Cache(full, log.logger).load(sample_key(used)).has_value()) << used << " before " << number;
        }
        ASSERT_TRUE(Cache(full, log.logger).store(sample_key(number), sample_entry(number % 9, 1000)));
    }
    EXPECT_TRUE(exists(count + 59));
    EXPECT_FALSE(exists(hot));
}

class Clocks : public Upkeep, public ::testing::WithParamInterface<int> {
 protected:
    CacheOptions limited_to(std::uint64_t bytes) {
        CacheOptions chosen = Upkeep::limited_to(bytes);
        chosen.files = &disk;
        return chosen;
    }
    int count(testing::Call call, const std::function<void()>& body) {
        int calls = 0;
        disk.set_fault([&](const testing::CallRecord& record) {
            calls += record.call == call ? 1 : 0;
            return 0;
        });
        body();
        disk.set_fault({});
        return calls;
    }

    testing::FaultFileSystem disk;
};

TEST_P(Clocks, ThatDifferChangeNothing) {
    {
        Cache filler(options(), log.logger);
        for (int number = 0; number < 10; ++number) store_aged(filler, number, minutes(10 - number));
    }
    disk.ahead = hours(GetParam());
    Cache cache(limited_to(1000 * entry_size()), log.logger);
    const auto store_ten = [&] {
        for (int number = 0; number < 10; ++number) {
            ASSERT_TRUE(cache.store(sample_key(20 + number), sample_entry(number, 1000)));
        }
    };
    std::filesystem::create_directories(entry_file(root(), sample_key(20)).parent_path());
    EXPECT_LE(count(testing::Call::list, store_ten), 20) << "no store looks through the layer";
    EXPECT_LE(count(testing::Call::touch,
                    [&] {
                        for (int i = 0; i < 50; ++i) ASSERT_TRUE(cache.load(sample_key(i % 10)).has_value());
                    }),
              0);

    // A process that only reads learns the time from the first entry that it touches.
    Cache reader(limited_to(1000 * entry_size()), log.logger);
    EXPECT_LE(count(testing::Call::touch,
                    [&] {
                        for (int i = 0; i < 50; ++i) ASSERT_TRUE(reader.load(sample_key(i % 10)).has_value());
                    }),
              1);

    // What is unused for longest goes, and nothing else.
    Cache small(limited_to(20 * entry_size()), log.logger);
    ASSERT_TRUE(small.store(sample_key(40), sample_entry(4, 1000)));
    small.finish_eviction();
    EXPECT_EQ(small.usage().entries, 18u);
    for (int number = 20; number < 30; ++number) EXPECT_TRUE(exists(number)) << number;
    EXPECT_TRUE(exists(40));
}

TEST_P(Clocks, OfTheServerTellAges) {
    {
        Cache filler(options(), log.logger);
        store_aged(filler, 1, minutes(10));
        store_aged(filler, 2, minutes(0));
    }
    disk.ahead = hours(GetParam());
    const Cache cache(limited_to(1000 * entry_size()), log.logger);
    const CacheUsage usage = cache.usage();
    EXPECT_NEAR(cache.age(usage.oldest), 600, 60);
    EXPECT_NEAR(cache.age(usage.newest), 0, 60);
}

INSTANTIATE_TEST_SUITE_P(HoursAhead, Clocks, ::testing::Values(-2, 0, 2));

TEST_F(Upkeep, AStampFromTheFutureCountsAsNone) {
    Cache cache(limited_to(10 * entry_size()), log.logger);
    store_aged(cache, 1, hours(1));
    const auto leftover = entry_file(root(), sample_key(1)).parent_path() / ".tmp-1-00";
    testing::write_file(leftover, "half");
    testing::set_age(leftover, -hours(24 * 365));
    testing::set_age(upkeep_file(root()), -hours(24 * 365));
    ASSERT_TRUE(cache.store(sample_key(2), sample_entry(2, 1000)));
    EXPECT_FALSE(std::filesystem::exists(leftover)) << "nobody writes it now";
    EXPECT_LE(testing::age_of(upkeep_file(root())), minutes(1));
    EXPECT_GE(testing::age_of(upkeep_file(root())), minutes(-1));
}

TEST_F(Upkeep, EntriesFromTheFutureAreUsedNow) {
    Cache cache(limited_to(20 * entry_size()), log.logger);
    for (int number = 0; number < 20; ++number) store_aged(cache, number, number < 10 ? -hours(24 * 365) : hours(2));
    testing::set_age(upkeep_file(root()), hours(2));
    ASSERT_TRUE(cache.store(sample_key(0), sample_entry(0, 1000)));
    for (int number = 0; number < 10; ++number) {
        EXPECT_GE(testing::age_of(entry_file(root(), sample_key(number))), minutes(-1)) << number;
    }
    // From here on those that are used go last.
    std::this_thread::sleep_for(std::chrono::milliseconds(1100));
    for (int number = 10; number < 20; ++number) ASSERT_TRUE(cache.load(sample_key(number)).has_value());
    for (int number = 20; number < 28; ++number) ASSERT_TRUE(cache.store(sample_key(number), sample_entry(1, 1000)));
    for (int number = 10; number < 28; ++number) EXPECT_TRUE(exists(number)) << number;
}

TEST_F(Upkeep, OfALargeLayerOnASlowServerHoldsNoStoreUp) {
    constexpr int count = 3000;
    const std::string bytes = encode_for(sample_key(1), sample_entry(1, 1000));
    for (int number = 0; number < count; ++number) {
        testing::write_file(entry_file(root(), sample_key(number)), bytes);
        testing::set_age(entry_file(root(), sample_key(number)), hours(2) + minutes(number));
    }
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
    testing::FaultFileSystem disk([](const testing::CallRecord& record) {
        if (record.call == testing::Call::status) std::this_thread::sleep_for(std::chrono::microseconds(300));
        return 0;
    });
    CacheOptions slow = limited_to(count * bytes.size() * 9 / 10);
    slow.files = &disk;
    Cache cache(slow, log.logger);
    std::chrono::nanoseconds longest{0};
    for (int number = count; number < count + 10; ++number) {
        const auto start = std::chrono::steady_clock::now();
        ASSERT_TRUE(cache.store(sample_key(number), sample_entry(1, 1000)));
        longest = std::max<std::chrono::nanoseconds>(longest, std::chrono::steady_clock::now() - start);
    }
    EXPECT_LT(longest, std::chrono::milliseconds(200)) << "in one piece it takes more than a second";
    // It is done in the end.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (read_count({util::real_file_system(), root()}) > *slow.limit_bytes &&
           std::chrono::steady_clock::now() < end) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_LE(Cache(options(), log.logger).usage().bytes, *slow.limit_bytes);
    for (int number = count; number < count + 10; ++number) EXPECT_TRUE(exists(number)) << number;
}

TEST_F(Upkeep, NoLimitIsZero) {
    Cache cache(limited_to(0), log.logger);
    for (int number = 0; number < 20; ++number) store_aged(cache, number, hours(number + 1));
    testing::set_age(upkeep_file(root()), hours(2));
    ASSERT_TRUE(cache.store(sample_key(20), sample_entry(1, 100'000)));
    EXPECT_EQ(cache.usage().entries, 21u);
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(Upkeep, TheLargestNumberIsNoLimitEither) {
    Cache cache(limited_to(UINT64_MAX), log.logger);
    for (int number = 0; number < 20; ++number) store_aged(cache, number, hours(number + 1));
    for (const char* count : {"04611686018427387904", "18446744073709551615"}) {
        testing::write_file(lock_file(root()), count);
        testing::set_age(upkeep_file(root()), hours(2));
        ASSERT_TRUE(cache.store(sample_key(20), sample_entry(1, 100'000)));
        cache.finish_eviction();
        EXPECT_EQ(cache.usage().entries, 21u) << count;
    }
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(Upkeep, RecordsCountTowardsTheLimitAndGoAfterTheKernels) {
    const std::string record(3 * entry_size(), 'r');
    Cache cache(limited_to(10 * entry_size()), log.logger);
    ASSERT_TRUE(cache.store_record("GPU", sample_key(100), record));
    testing::set_age(record_file(root(), "GPU", sample_key(100)), hours(100));
    for (int number = 0; number < 7; ++number) store_aged(cache, number, hours(number + 1));
    EXPECT_EQ(cache.usage().entries, 7u);

    ASSERT_TRUE(cache.store_record("GPU", sample_key(101), record));
    cache.finish_eviction();
    EXPECT_EQ(cache.usage().entries, 3u) << "two records and three kernels are nine tenths";
    EXPECT_TRUE(exists(0));
    EXPECT_FALSE(exists(6));

    for (int number = 102; number < 105; ++number) ASSERT_TRUE(cache.store_record("GPU", sample_key(number), record));
    cache.finish_eviction();
    EXPECT_EQ(cache.usage().entries, 0u);
    EXPECT_FALSE(std::filesystem::exists(record_file(root(), "GPU", sample_key(100)))) << "it is the oldest";
    EXPECT_EQ(cache.record_keys("GPU").size(), 3u);
    EXPECT_TRUE(cache.record_keys("GPU").contains(sample_key(104)));
}

TEST_F(Upkeep, WhatAnotherProcessRemovedMeanwhileIsFreed) {
    Cache filler(options(), log.logger);
    for (int number = 0; number < 20; ++number) store_aged(filler, number, hours(30 - number));
    testing::FaultFileSystem disk;
    CacheOptions small = limited_to(20 * entry_size());
    small.files = &disk;
    Cache cache(small, log.logger);
    // The first removal is that of the oldest entry: the next two are gone by then.
    bool begun = false, first = true;
    disk.set_fault([&](const testing::CallRecord& record) {
        begun |= record.call == testing::Call::touch;
        if (begun && record.call == testing::Call::remove && std::exchange(first, false)) {
            for (const int number : {1, 2}) std::filesystem::remove(entry_file(root(), sample_key(number)));
        }
        return 0;
    });
    ASSERT_TRUE(cache.store(sample_key(20), sample_entry(1, 1000)));
    cache.finish_eviction();
    EXPECT_FALSE(first);
    for (int number = 0; number <= 20; ++number) EXPECT_EQ(exists(number), number > 2) << number;
}

TEST_F(Upkeep, ThatTakesLongerThanAStoreIsFinishedBeforeTheProcessEnds) {
    Cache filler(options(), log.logger);
    for (int number = 0; number < 60; ++number) store_aged(filler, number, hours(60 - number));
    testing::FaultFileSystem slow([](const testing::CallRecord& record) {
        // More than a store waits for, and less than the end does.
        if (record.call == testing::Call::status) std::this_thread::sleep_for(std::chrono::microseconds(400));
        return 0;
    });
    CacheOptions small = limited_to(40 * entry_size());
    small.files = &slow;
    {
        Cache cache(small, log.logger);
        ASSERT_TRUE(cache.store(sample_key(60), sample_entry(1, 1000)));
    }
    EXPECT_LE(filler.usage().bytes, 40 * entry_size());
    EXPECT_TRUE(exists(60));
}

TEST_F(Upkeep, IsDoneByProcessesThatAllEndBeforeOneHasLookedAtEverything) {
    constexpr int count = 1000, old = 700;
    const std::string bytes = encode_for(sample_key(1), sample_entry(1, 1000));
    for (int number = 0; number < count; ++number) {
        const std::filesystem::path file = entry_file(root(), sample_key(1000 + number));
        testing::write_file(file, bytes);
        testing::set_age(file, number < old ? hours(48) + minutes(number) : minutes(30));
    }
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
    testing::FaultFileSystem slow([](const testing::CallRecord& record) {
        // A look at everything takes two seconds, the end of a process one.
        if (record.call == testing::Call::status) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        return 0;
    });
    CacheOptions small = limited_to(count * bytes.size() * 7 / 10);
    const auto size = [&] { return Cache(options(), log.logger).usage().bytes; };
    // With a count that is known, and where nobody could count before.
    for (const bool counted : {false, true}) {
        SCOPED_TRACE(counted);
        if (counted) {
            *small.limit_bytes = size() * 8 / 10;
            testing::write_file(lock_file(root()), fmt::format("{:020}", size()));
        }
        small.files = &slow;
        // Without a count it is estimated from the part that was seen.
        const std::uint64_t most = counted ? *small.limit_bytes : *small.limit_bytes * 21 / 20;
        for (int process = 0; process < 60 && size() > most; ++process) {
            Cache cache(small, log.logger);
            ASSERT_TRUE(cache.store(sample_key(process + (counted ? 60 : 0)), sample_entry(1, 1000)));
        }
        EXPECT_LE(size(), most);
        EXPECT_GE(size(), *small.limit_bytes * 7 / 10) << "each takes only a share of what is to go";
        if (counted) {
            EXPECT_EQ(read_count({util::real_file_system(), root()}), size());
        }
    }
    int lost = 0;
    for (int number = old; number < count; ++number) {
        lost += std::filesystem::exists(entry_file(root(), sample_key(1000 + number))) ? 0 : 1;
    }
    EXPECT_LE(lost, (count - old) / 50) << "what was used of late goes last";
}

TEST_F(Upkeep, WhatIsStoredOrUsedWhileItIsDoneStays) {
    Cache other(options(), log.logger);
    for (int number = 0; number < 4; ++number) store_aged(other, number, hours(30 - number));
    testing::FaultFileSystem disk;
    // Next to nothing fits, so that everything goes that may.
    CacheOptions tiny = limited_to(entry_size() + 100);
    tiny.files = &disk;
    Cache cache(tiny, log.logger);
    bool begun = false, first = true;
    disk.set_fault([&](const testing::CallRecord& record) {
        begun |= record.call == testing::Call::touch;
        if (begun && record.call == testing::Call::list && std::exchange(first, false)) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
            EXPECT_TRUE(other.store(sample_key(30), sample_entry(3, 1000)));
            std::filesystem::last_write_time(entry_file(root(), sample_key(0)),
                                             std::filesystem::file_time_type::clock::now());
        }
        return 0;
    });
    ASSERT_TRUE(cache.store(sample_key(4), sample_entry(4, 1000)));
    cache.finish_eviction();
    EXPECT_FALSE(first);
    for (const int number : {0, 4, 30}) EXPECT_TRUE(exists(number)) << number;
    for (const int number : {1, 2, 3}) EXPECT_FALSE(exists(number)) << number;
}

TEST_F(Upkeep, IsLeftToWhoeverIsAtIt) {
    Cache cache(limited_to(4 * entry_size()), log.logger);
    for (int number = 0; number < 4; ++number) store_aged(cache, number, hours(10 - number));
    std::optional<util::ByteLock> holder;
    holder.emplace(util::real_file_system(), util::At(lock_file(root())), upkeep_offset, std::chrono::seconds(0));
    ASSERT_TRUE(holder->held());
    ASSERT_TRUE(cache.store(sample_key(4), sample_entry(4, 1000)));
    EXPECT_EQ(cache.usage().entries, 5u);
    holder.reset();
    ASSERT_TRUE(cache.store(sample_key(5), sample_entry(5, 1000)));
    cache.finish_eviction();
    EXPECT_EQ(cache.usage().entries, 3u) << "three are what nine tenths of four hold";

    // One that was stopped does not stop it for ever.
    holder.emplace(util::real_file_system(), util::At(lock_file(root())), upkeep_offset, std::chrono::seconds(0));
    for (const int number : {6, 7}) ASSERT_TRUE(cache.store(sample_key(number), sample_entry(6, 1000)));
    EXPECT_EQ(cache.usage().entries, 5u);
    testing::set_age(upkeep_file(root()), hours(3));
    ASSERT_TRUE(cache.store(sample_key(8), sample_entry(8, 1000)));
    cache.finish_eviction();
    EXPECT_EQ(cache.usage().entries, 3u);
}

TEST_F(Upkeep, ACountThatIsWrongIsPutRight) {
    Cache cache(limited_to(6 * entry_size()), log.logger);
    for (int number = 0; number < 6; ++number) store_aged(cache, number, hours(10 - number));
    for (const char* wrong : {"", "nonsense", "99999999999999999999", "00000000000000999999", "0000000000001"}) {
        testing::write_file(lock_file(root()), wrong);
        ASSERT_TRUE(cache.store(sample_key(5), sample_entry(5, 1000)));
        cache.finish_eviction();
        EXPECT_EQ(cache.usage().entries, 6u) << wrong;
        EXPECT_EQ(read_count({util::real_file_system(), root()}), 6 * entry_size()) << wrong;
    }
    // One that is too low is found within the hour.
    testing::write_file(lock_file(root()), "00000000000000000001");
    testing::set_age(upkeep_file(root()), minutes(61));
    ASSERT_TRUE(cache.store(sample_key(6), sample_entry(6, 1000)));
    cache.finish_eviction();
    EXPECT_EQ(cache.usage().entries, 5u);
}

TEST_F(Upkeep, TemporaryFilesOfDeadProcessesAreSweptAfterAnHour) {
    const auto temporary = [&](const char* name, std::chrono::seconds age) {
        const std::filesystem::path file = entry_file(root(), sample_key(1)).parent_path() / name;
        testing::write_file(file, "half an ent");
        testing::set_age(file, age);
        return file;
    };
    const auto old = temporary(".tmp-1-00", minutes(70));
    const auto young = temporary(".tmp-2-00", minutes(50));
    const auto beside_the_lock = temporary("../../.tmp-3-00", minutes(70));
    const auto foreign = temporary("notes", hours(100));
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
    ASSERT_TRUE(Cache(options(), log.logger).store(sample_key(1), sample_entry(1)));
    EXPECT_FALSE(std::filesystem::exists(old));
    EXPECT_FALSE(std::filesystem::exists(beside_the_lock));
    EXPECT_TRUE(std::filesystem::exists(young));
    EXPECT_TRUE(std::filesystem::exists(foreign));
}

TEST_F(Upkeep, IsDoneByOneProcessWithinTheHour) {
    ASSERT_TRUE(Cache(options(), log.logger).store(sample_key(1), sample_entry(1)));
    const auto leftover = entry_file(root(), sample_key(1)).parent_path() / ".tmp-1-00";
    testing::write_file(leftover, "half");
    testing::set_age(leftover, hours(2));

    ASSERT_TRUE(Cache(options(), log.logger).store(sample_key(2), sample_entry(2)));
    EXPECT_TRUE(std::filesystem::exists(leftover)) << "the first process has just looked";

    testing::set_age(upkeep_file(root()), minutes(61));
    ASSERT_TRUE(Cache(options(), log.logger).store(sample_key(3), sample_entry(3)));
    EXPECT_FALSE(std::filesystem::exists(leftover));
}

}  // namespace
}  // namespace smlora::cache
