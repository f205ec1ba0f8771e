#include "cache/prune.hpp"

#include "cache/byte_count.hpp"
#include "fault/fault_file_system.hpp"
#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>

namespace smlora::cache {
namespace {

using std::chrono::hours;
using testing::sample_key;

class Prune : public testing::CacheTest {
 protected:
    /// Four kernels: the higher the number, the longer unused; 1 and 3 are for sm_80, the others for sm_90a.
    void SetUp() override {
        Cache cache(options(), log.logger);
        for (int number = 0; number < 4; ++number) {
            KernelEntry entry = testing::sample_entry(7, 1000);
            entry.metadata["arch"] = number % 2 == 1 ? "sm_80" : "sm_90a";
            ASSERT_TRUE(cache.store(sample_key(number), entry));
            testing::set_age(entry_file(root(), sample_key(number)), hours(10 * number + 1));
        }
    }

    static PruneOptions wanted(const std::string& arch, std::optional<std::chrono::seconds> unused_for,
                               std::optional<std::uint64_t> max_bytes) {
        return {arch, unused_for, max_bytes, false};
    }

    PruneReport prune(const PruneOptions& options_of_it) { return Cache(options(), log.logger).prune(options_of_it); }

    [[nodiscard]] std::string left() const {
        std::string numbers;
        for (int number = 0; number < 4; ++number) {
            if (std::filesystem::exists(entry_file(root(), sample_key(number)))) numbers += std::to_string(number);
        }
        return numbers;
    }

    [[nodiscard]] std::uint64_t size_of(int number) const {
        return std::filesystem::file_size(entry_file(root(), sample_key(number)));
    }
};

TEST_F(Prune, ByAge) {
    const std::uint64_t bytes = size_of(3);
    const PruneReport report = prune(wanted("", hours(25), std::nullopt));
    EXPECT_EQ(left(), "012");
    EXPECT_EQ(report.removed, 1u);
    EXPECT_EQ(report.removed_bytes, bytes);
    EXPECT_EQ(report.left, 3u);
    EXPECT_EQ(report.left_bytes, size_of(0) + size_of(1) + size_of(2));
    EXPECT_EQ(prune(wanted("", hours(25), std::nullopt)).removed, 0u);
}

TEST_F(Prune, BySizeThoseUnusedForLongestGoFirst) {
    const std::uint64_t two = size_of(0) + size_of(1);
    EXPECT_EQ(prune(wanted("", std::nullopt, two)).removed, 2u);
    EXPECT_EQ(left(), "01");
    EXPECT_EQ(prune(wanted("", std::nullopt, two)).removed, 0u);
    EXPECT_EQ(prune(wanted("", std::nullopt, two - 1)).removed, 1u);
    EXPECT_EQ(left(), "0");
    EXPECT_EQ(prune(wanted("", std::nullopt, 0)).left, 0u);
}

TEST_F(Prune, ByArchitecture) {
    EXPECT_EQ(prune(wanted("sm_80", hours(25), std::nullopt)).removed, 1u);
    EXPECT_EQ(left(), "012");
    EXPECT_EQ(prune(wanted("sm_90a", std::nullopt, std::nullopt)).left, 1u);
    EXPECT_EQ(left(), "1");
    EXPECT_EQ(prune(wanted("sm_86", std::nullopt, std::nullopt)).removed, 0u);
}

TEST_F(Prune, AgesGoByTheClockOfTheFiles) {
    for (const int ahead : {-2, 0, 2}) {
        testing::FaultFileSystem disk;
        disk.ahead = hours(ahead);
        CacheOptions skewed = options();
        skewed.files = &disk;
        EXPECT_EQ(Cache(skewed, log.logger).prune(wanted("", hours(2), std::nullopt)).removed, 3u) << ahead;
        EXPECT_EQ(left(), "0");
        EXPECT_EQ(Cache(skewed, log.logger).prune(wanted("", std::chrono::minutes(50), std::nullopt)).left, 0u);
        SetUp();
    }
}

TEST_F(Prune, ATimeFromTheFutureIsNow) {
    testing::set_age(entry_file(root(), sample_key(3)), -hours(10000));
    EXPECT_EQ(prune(wanted("", std::chrono::seconds(5), std::nullopt)).removed, 3u);
    EXPECT_EQ(left(), "3");
}

TEST_F(Prune, ADryRunSaysTheSameAndRemovesNothing) {
    for (const PruneOptions& chosen : {wanted("", hours(5), std::nullopt), wanted("", std::nullopt, 1),
                                       wanted("sm_80", std::nullopt, std::nullopt)}) {
        PruneOptions dry = chosen;
        dry.dry_run = true;
        const PruneReport said = prune(dry);
        EXPECT_EQ(left(), "0123");
        const PruneReport done = prune(chosen);
        EXPECT_EQ(said.removed, done.removed);
        EXPECT_EQ(said.removed_bytes, done.removed_bytes);
        EXPECT_EQ(said.left, done.left);
        EXPECT_EQ(said.left_bytes, done.left_bytes);
        std::filesystem::remove_all(root());
        SetUp();
    }
}

TEST_F(Prune, TheCountOfBytesFollowsWhateverIsRemoved) {
    Cache cache(options(), log.logger);
    for (int number = 0; number < 3; ++number) ASSERT_TRUE(cache.store_record("GPU", sample_key(number), "{}"));
    const auto expect_counted = [&](const char* what) {
        const CacheUsage usage = cache.usage();
        EXPECT_EQ(read_count({util::real_file_system(), root()}), usage.bytes + usage.record_bytes) << what;
    };
    expect_counted("stored");
    EXPECT_EQ(cache.prune({"", hours(25), std::nullopt, true}).removed, 1u);
    expect_counted("a dry run");
    EXPECT_EQ(cache.prune(wanted("", hours(25), std::nullopt)).removed, 1u);
    expect_counted("prune");
    testing::write_file(entry_file(root(), sample_key(2)), std::string(size_of(2), 'x'));
    EXPECT_FALSE(cache.load(sample_key(2)).has_value());
    expect_counted("a rejected kernel");
    for (const StoredFile& stored : cache.record_files("GPU", sample_key(0))) {
        cache.reject_record({stored, "{}"}, "for this test");
    }
    expect_counted("a rejected record");
    testing::write_file(entry_file(root(), sample_key(1)), std::string(size_of(1), 'x'));
    for (const UnsoundFile& unsound : cache.verify()) EXPECT_EQ(cache.remove(unsound), 0);
    expect_counted("repair");
    testing::write_file(bundle_file(root(), "GPU"), "{}");
    EXPECT_EQ(cache.clear_records(), 3u);
    expect_counted("clear records");
    EXPECT_EQ(cache.clear(), 1u);
    expect_counted("clear");
    EXPECT_EQ(read_count({util::real_file_system(), root()}), 0u);
}

}  // namespace
}  // namespace smlora::cache
