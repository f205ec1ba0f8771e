// Whatever call fails while an entry is stored: readers find the new entry, the old one or none, and the caller goes
// on.
#include "cache/cache.hpp"
#include "cache/layer.hpp"
#include "fault/faulty_cache_test.hpp"
#include "support/errors.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <set>

namespace smlora::cache {
namespace {

using testing::Call;
using testing::CallRecord;
using testing::FaultFileSystem;
using testing::sample_entry;
using testing::sample_key;

constexpr int old_number = 1;
constexpr int new_number = 2;

class StoreFaults : public testing::FaultyCacheTest {
 protected:
    /// What a process that comes later finds: the number of the entry, 0 when there is none.
    int found_later() {
        testing::RecordingLog later;
        Cache cache(options(), later.logger);
        EXPECT_TRUE(cache.verify().empty()) << "an unsound entry was published";
        const auto entry = cache.load(sample_key(0));
        EXPECT_EQ(cache.rejected(), 0u);
        return entry ? entry->metadata.at("registers").get<int>() : 0;
    }

    int temporaries() { return static_cast<int>(scan({util::real_file_system(), root()}).temporaries.size()); }

    void start_over(bool with_old_entry) {
        std::filesystem::remove_all(root());
        if (!with_old_entry) return;
        testing::RecordingLog before;
        ASSERT_TRUE(Cache(options(), before.logger).store(sample_key(0), sample_entry(old_number)));
    }
};

using Parameters = std::tuple<bool, int>;
class StoreWithOneFailure : public StoreFaults, public ::testing::WithParamInterface<Parameters> {};

TEST_P(StoreWithOneFailure, IsAllOrNothing) {
    const auto [with_old_entry, error] = GetParam();
    const int before = with_old_entry ? old_number : 0;
    int failures = 0;
    for (int n = 0;; ++n) {
        start_over(with_old_entry);
        testing::RecordingLog lines;
        FaultFileSystem disk;
        Cache cache(on(disk), lines.logger);
        disk.set_fault(testing::fail_call(n, error));
        const bool stored = cache.store(sample_key(0), sample_entry(new_number));
        const bool reached = disk.calls() > n;

        EXPECT_EQ(found_later(), stored ? new_number : before) << "call " << n;
        EXPECT_EQ(temporaries(), 0) << "call " << n;
        EXPECT_EQ(lines.warnings().size(), stored ? 0u : 1u) << "call " << n;
        failures += stored ? 0 : 1;

        // The fault is over: everything works again.
        disk.set_fault({});
        EXPECT_TRUE(cache.store(sample_key(0), sample_entry(new_number)));
        EXPECT_EQ(found_later(), new_number);
        if (!reached) break;
    }
    EXPECT_GE(failures, 4) << "opening, writing, syncing, closing and renaming matter at least";
}

INSTANTIATE_TEST_SUITE_P(Errors, StoreWithOneFailure,
                         ::testing::Combine(::testing::Bool(),
                                            ::testing::Values(-ENOSPC, -EIO, -EACCES, -EROFS, -EDQUOT, -EMFILE)));

class StoreWithDeath : public StoreFaults, public ::testing::WithParamInterface<std::tuple<bool, bool>> {};

TEST_P(StoreWithDeath, LeavesTheOldEntryOrTheNewOne) {
    const auto [with_old_entry, torn_write] = GetParam();
    const int before = with_old_entry ? old_number : 0;
    int deaths_with_leftovers = 0;
    bool reached = true;
    for (int n = 0; reached; ++n) {
        start_over(with_old_entry);
        testing::RecordingLog lines;
        FaultFileSystem disk;
        disk.torn = torn_write ? FaultFileSystem::Torn::half : FaultFileSystem::Torn::no;
        Cache cache(on(disk), lines.logger);
        disk.set_fault(testing::die_at_call(n));
        const bool stored = cache.store(sample_key(0), sample_entry(new_number));
        reached = disk.calls() > n;

        const int found = found_later();
        EXPECT_TRUE(found == before || found == new_number) << "call " << n << ": " << found;
        if (stored) {
            EXPECT_EQ(found, new_number) << "call " << n;
        }
        deaths_with_leftovers += temporaries() > 0 ? 1 : 0;

        // The next process neither minds the leftovers nor keeps them for ever.
        for (const StoredFile& leftover : scan({util::real_file_system(), root()}).temporaries) {
            testing::set_age(leftover.file, std::chrono::hours(2));
        }
        std::filesystem::remove(upkeep_file(root()));
        Cache next(options(), lines.logger);
        EXPECT_TRUE(next.store(sample_key(0), sample_entry(3))) << "call " << n;
        EXPECT_EQ(found_later(), 3);
        EXPECT_EQ(temporaries(), 0);
    }
    EXPECT_GE(deaths_with_leftovers, 3) << "the test is to meet deaths between opening and renaming";
}

INSTANTIATE_TEST_SUITE_P(Moments, StoreWithDeath, ::testing::Combine(::testing::Bool(), ::testing::Bool()));

TEST_F(StoreFaults, ShortWritesAreContinued) {
    for (const std::size_t longest : {1u, 7u, 100u}) {
        start_over(false);
        FaultFileSystem disk;
        disk.longest_write = longest;
        Cache cache(on(disk), log.logger);
        EXPECT_TRUE(cache.store(sample_key(0), sample_entry(new_number)));
        EXPECT_EQ(found_later(), new_number);
    }
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(StoreFaults, AWriteWithoutProgressIsNotTriedForEver) {
    FaultFileSystem disk;
    disk.longest_write = 0;
    Cache cache(on(disk), log.logger);
    EXPECT_FALSE(cache.store(sample_key(0), sample_entry(new_number)));
    EXPECT_EQ(temporaries(), 0);
}

TEST_F(StoreFaults, AFullDiskIsOneWarningAndNoHalfEntry) {
    FaultFileSystem disk;
    disk.torn = FaultFileSystem::Torn::half;
    Cache cache(on(disk), log.logger);
    disk.set_fault(testing::fail_every(Call::write, -ENOSPC));
    for (int number = 0; number < 5; ++number) EXPECT_FALSE(cache.store(sample_key(number), sample_entry(number)));
    ASSERT_EQ(log.warnings().size(), 1u);
    EXPECT_EQ(log.warnings()[0], "cache " + root().string() +
                                     ": cannot be written: No space left on device; kernels are kept in memory only, "
                                     "and the next process compiles them again");
    EXPECT_EQ(found_later(), 0);
    EXPECT_EQ(temporaries(), 0);
    disk.set_fault({});
    EXPECT_TRUE(cache.store(sample_key(0), sample_entry(new_number))) << "there is room again";
}

TEST_F(StoreFaults, AReadOnlyRootStillServes) {
    start_over(true);
    testing::set_age(entry_file(root(), sample_key(0)), std::chrono::hours(5));
    FaultFileSystem disk(testing::read_only_disk());
    Cache cache(on(disk), log.logger);
    EXPECT_TRUE(cache.load(sample_key(0)).has_value());
    EXPECT_FALSE(cache.store(sample_key(1), sample_entry(1)));
    EXPECT_FALSE(cache.store(sample_key(2), sample_entry(2)));
    EXPECT_EQ(test::message_of(ErrorCode::io, [&] { cache.clear(); }),
              "cache: " + entry_file(root(), sample_key(0)).string() + ": cannot be removed: Read-only file system");
    EXPECT_EQ(cache.usage().entries, 1u);
    EXPECT_EQ(log.warnings().size(), 1u);
}

TEST_F(StoreFaults, AReadOnlyParentOfTheRootIsOneWarning) {
    FaultFileSystem disk(testing::read_only_disk());
    Cache cache(on(disk), log.logger);
    EXPECT_FALSE(cache.load(sample_key(0)).has_value());
    EXPECT_FALSE(cache.store(sample_key(0), sample_entry(1)));
    int runs = 0;
    cache.with_lock(sample_key(0), [&] { ++runs; });
    EXPECT_EQ(runs, 1);
    EXPECT_EQ(log.warnings().size(), 1u);
}

TEST_F(StoreFaults, WhoMustStoreIsToldWhyNothingCanBeStored) {
    const auto expect_refused = [&](Cache& cache, const std::string& message) {
        try {
            cache.require_writable();
            ADD_FAILURE() << "expected: " << message;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::io);
            EXPECT_EQ(error.what(), message);
        }
    };
    const std::string prefix = "cache " + root().string() + ": cannot be written: ";
    const auto files = [&] {
        std::set<std::filesystem::path> found;
        for (const auto& item : std::filesystem::recursive_directory_iterator(root())) found.insert(item.path());
        return found;
    };
    start_over(true);
    const auto before = files();
    FaultFileSystem read_only(testing::read_only_disk());
    Cache unwritable(on(read_only), log.logger);
    expect_refused(unwritable, prefix + "Read-only file system");

    FaultFileSystem disk;
    disk.torn = FaultFileSystem::Torn::half;
    Cache cache(on(disk), log.logger);
    disk.set_fault(testing::fail_every(Call::write, -ENOSPC));
    expect_refused(cache, prefix + "No space left on device");
    disk.set_fault({});
    EXPECT_NO_THROW(cache.require_writable()) << "there is room again";

    EXPECT_EQ(files(), before) << "nothing of a try stays";
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(StoreFaults, UpkeepThatFailsDoesNotFailTheStore) {
    for (const Call call : {Call::list, Call::remove, Call::touch}) {
        start_over(false);
        FaultFileSystem disk;
        CacheOptions tiny = on(disk);
        tiny.limit_bytes = 700;
        Cache cache(tiny, log.logger);
        disk.set_fault(testing::fail_every(call, -EIO));
        for (int number = 0; number < 6; ++number) EXPECT_TRUE(cache.store(sample_key(number), sample_entry(number)));
        EXPECT_TRUE(cache.load(sample_key(5)).has_value());
    }
    EXPECT_TRUE(log.warnings().empty());
}

}  // namespace
}  // namespace smlora::cache
