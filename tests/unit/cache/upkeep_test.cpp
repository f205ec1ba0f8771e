#include "cache/upkeep.hpp"

#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>

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
    // Down to nine tenths: two of eleven go.
    for (int number = 0; number <= 10; ++number) EXPECT_EQ(exists(number), number != 8 && number != 9) << number;
    EXPECT_EQ(cache.usage().bytes, 9 * entry_size());
}

TEST_F(Upkeep, AHitSavesAnEntry) {
    Cache cache(limited_to(4 * entry_size()), log.logger);
    for (int number = 0; number < 4; ++number) store_aged(cache, number, hours(10 - number));
    ASSERT_TRUE(cache.load(sample_key(0)).has_value());
    ASSERT_TRUE(cache.store(sample_key(4), sample_entry(4, 1000)));
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

TEST_F(Upkeep, TemporaryFilesOfDeadProcessesAreSweptAfterAnHour) {
    const auto temporary = [&](const char* name, std::chrono::seconds age) {
        const std::filesystem::path file = entry_file(root(), sample_key(1)).parent_path() / name;
        testing::write_file(file, "half an ent");
        testing::set_age(file, age);
        return file;
    };
    const auto old = temporary(".tmp-1-00", minutes(70));
    const auto young = temporary(".tmp-2-00", minutes(50));
    const auto foreign = temporary("notes", hours(100));
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
    ASSERT_TRUE(Cache(options(), log.logger).store(sample_key(1), sample_entry(1)));
    EXPECT_FALSE(std::filesystem::exists(old));
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
