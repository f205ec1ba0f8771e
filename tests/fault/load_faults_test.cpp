// Whatever call fails while an entry is loaded or locked: it is a hit or a miss, and the entry stays.
#include "cache/cache.hpp"
#include "cache/layer.hpp"
#include "fault/faulty_cache_test.hpp"

#include <gtest/gtest.h>

namespace smlora::cache {
namespace {

using testing::Call;
using testing::FaultFileSystem;
using testing::sample_entry;
using testing::sample_key;

class LoadFaults : public testing::FaultyCacheTest {
 protected:
    void SetUp() override {
        testing::RecordingLog before;
        ASSERT_TRUE(Cache(options(), before.logger).store(sample_key(0), sample_entry(1)));
        // Old enough for a hit to touch it, so that this call is there to fail as well.
        testing::set_age(entry_file(root(), sample_key(0)), std::chrono::hours(2));
    }
};

/// Whether the entry is found while call `n` fails; what is found is right. `reached`: whether there were so many
/// calls.
bool load_while(FaultFileSystem& disk, Cache& cache, int n, int error, bool& reached) {
    disk.set_fault(testing::fail_call(n, error));
    const auto entry = cache.load(sample_key(0));
    reached = disk.calls() > n;
    if (entry) testing::expect_same(entry, sample_entry(1));
    return entry.has_value();
}

TEST_F(LoadFaults, OneFailureIsAHitOrAMissAndTheEntryStays) {
    for (const int error : {-EIO, -EACCES, -ESTALE, -ENOENT, -EMFILE, -ENOMEM}) {
        int misses = 0;
        bool reached = true;
        for (int n = 0; reached; ++n) {
            testing::RecordingLog lines;
            FaultFileSystem disk;
            Cache cache(on(disk), lines.logger);
            const bool hit = load_while(disk, cache, n, error, reached);
            misses += hit ? 0 : 1;
            EXPECT_LE(lines.warnings().size(), 1u);
            disk.set_fault({});
            testing::expect_same(cache.load(sample_key(0)), sample_entry(1));
            testing::set_age(entry_file(root(), sample_key(0)), std::chrono::hours(2));
        }
        EXPECT_GE(misses, 3) << "opening, asking for the size and reading matter at least";
    }
}

TEST_F(LoadFaults, OneFailureOfAHitThatWasOneBeforeIsAHitOrAMissToo) {
    const std::filesystem::path file = entry_file(root(), sample_key(0));
    for (const int error : {-EIO, -EACCES, -ESTALE, -ENOENT, -EMFILE, -ENOMEM}) {
        int misses = 0;
        bool reached = true;
        for (int n = 0; reached; ++n) {
            testing::RecordingLog lines;
            FaultFileSystem disk;
            Cache cache(on(disk), lines.logger);
            testing::expect_same(cache.load(sample_key(0)), sample_entry(1));
            testing::set_age(file, std::chrono::hours(2));
            const bool hit = load_while(disk, cache, n, error, reached);
            misses += hit ? 0 : 1;
            EXPECT_EQ(lines.warnings().size(), 0u);
            disk.set_fault({});
            testing::expect_same(cache.load(sample_key(0)), sample_entry(1));
        }
        EXPECT_EQ(misses, 0) << "what fails in the folder that stays open is tried anew from the root";
    }
}

TEST_F(LoadFaults, NothingIsReadOfAFileThatOthersMayWriteTo) {
    const std::filesystem::path file = entry_file(root(), sample_key(0));
    std::filesystem::permissions(file, std::filesystem::perms::others_write, std::filesystem::perm_options::add);
    FaultFileSystem disk;
    Cache cache(on(disk), log.logger);
    int reads = 0;
    disk.set_fault([&](const testing::CallRecord& record) {
        reads += record.call == Call::read ? 1 : 0;
        return 0;
    });
    EXPECT_FALSE(cache.load(sample_key(0)));
    EXPECT_EQ(reads, 0);
    ASSERT_EQ(log.warnings().size(), 1u);
    EXPECT_NE(log.warnings()[0].find("its permissions are 0602"), std::string::npos) << log.warnings()[0];
    std::filesystem::permissions(file, std::filesystem::perms::others_write, std::filesystem::perm_options::remove);
    testing::expect_same(cache.load(sample_key(0)), sample_entry(1));
    EXPECT_GT(reads, 0);
}

TEST_F(LoadFaults, AFileThatShrinksWhileItIsReadIsAMiss) {
    FaultFileSystem disk;
    Cache cache(on(disk), log.logger);
    disk.set_fault([&](const testing::CallRecord& record) {
        if (record.call == Call::read) std::filesystem::resize_file(entry_file(root(), sample_key(0)), 50);
        return 0;
    });
    EXPECT_FALSE(cache.load(sample_key(0)).has_value());
    EXPECT_EQ(cache.rejected(), 1u);
}

TEST_F(LoadFaults, ADiskWithoutAnythingIsAnEmptyCache) {
    FaultFileSystem disk([](const testing::CallRecord&) { return -EIO; });
    Cache cache(on(disk), log.logger);
    EXPECT_FALSE(cache.load(sample_key(0)).has_value());
    EXPECT_FALSE(cache.store(sample_key(0), sample_entry(1)));
    EXPECT_TRUE(cache.list().empty());
    EXPECT_EQ(cache.usage().entries, 0u);
    ASSERT_EQ(cache.layers().size(), 1u);
    EXPECT_FALSE(cache.layers()[0].exists);
    int runs = 0;
    cache.with_lock(sample_key(0), [&] { ++runs; });
    EXPECT_EQ(runs, 1);
}

TEST_F(LoadFaults, EveryFailureOfTheLockRunsTheWorkOnceAndWithoutWaiting) {
    for (const int error : {-ENOLCK, -ENOSYS, -EINVAL, -EIO, -EACCES, -ENOSPC, -EROFS}) {
        bool reached = true;
        for (int n = 0; reached; ++n) {
            testing::RecordingLog lines;
            FaultFileSystem disk;
            CacheOptions patient = on(disk);
            patient.lock_patience = std::chrono::hours(1);
            Cache cache(patient, lines.logger);
            disk.set_fault(testing::fail_call(n, error));
            int runs = 0;
            cache.with_lock(sample_key(0), [&] { ++runs; });
            EXPECT_EQ(runs, 1);
            EXPECT_TRUE(lines.warnings().empty());
            reached = disk.calls() > n;
        }
    }
}

TEST_F(LoadFaults, NobodyWaitsForALockWhenNothingCanBeStored) {
    Cache holder(options(), log.logger);
    FaultFileSystem disk;
    CacheOptions patient = on(disk);
    patient.lock_patience = std::chrono::hours(1);
    Cache cache(patient, log.logger);
    disk.set_fault(testing::fail_every(Call::write, -ENOSPC));
    ASSERT_FALSE(cache.store(sample_key(1), sample_entry(1)));
    int runs = 0;
    holder.with_lock(sample_key(0), [&] { cache.with_lock(sample_key(0), [&] { ++runs; }); });
    EXPECT_EQ(runs, 1);
}

}  // namespace
}  // namespace smlora::cache
