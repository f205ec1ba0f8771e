#include "cache/use_counts.hpp"

#include "cache/upkeep.hpp"
#include "unit/cache/fixtures.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <thread>

namespace smlora::cache {
namespace {

using testing::sample_entry;
using testing::sample_key;

class Uses : public testing::CacheTest {
 protected:
    void SetUp() override { ASSERT_TRUE(Cache(options(), log.logger).store(sample_key(0), sample_entry(1))); }

    /// As a process that ends.
    void use(std::uint64_t hits, std::uint64_t misses) { Cache(options(), log.logger).count_use(hits, misses); }

    [[nodiscard]] UseCounts counts() { return Cache(options(), log.logger).use_counts(); }
};

TEST_F(Uses, AddUpOverProcessesUntilTheyAreZeroed) {
    EXPECT_EQ(counts().hits, 0u);
    use(3, 1);
    use(0, 0);
    use(4, 2);
    EXPECT_EQ(counts().hits, 7u);
    EXPECT_EQ(counts().misses, 3u);
    EXPECT_EQ(testing::contents_of(use_counts_file(root())), "3 1 0\n4 2 0\n") << "nothing was used: no line";
    Cache(options(), log.logger).zero_use_counts();
    EXPECT_EQ(counts().hits, 0u);
    Cache(options(), log.logger).zero_use_counts();
    use(1, 0);
    EXPECT_EQ(counts().hits, 1u);
}

TEST_F(Uses, AreWrittenOnce) {
    Cache cache(options(), log.logger);
    cache.count_use(3, 1);
    cache.write_use_counts();
    cache.write_use_counts();
    EXPECT_EQ(counts().hits, 3u) << "of a process that still runs";
    cache.count_use(1, 0);
    cache.write_use_counts();
    EXPECT_EQ(testing::contents_of(use_counts_file(root())), "3 1 0\n1 0 0\n");
}

TEST_F(Uses, OfManyAtOnceAreAllCounted) {
    std::vector<::pid_t> children;
    for (int child = 0; child < 16; ++child) {
        children.push_back(::fork());
        if (children.back() != 0) continue;
        for (int i = 0; i < 100; ++i) use(1, 2);
        ::_exit(0);
    }
    for (const ::pid_t child : children) ::waitpid(child, nullptr, 0);
    EXPECT_EQ(counts().hits, 1600u);
    EXPECT_EQ(counts().misses, 3200u);
}

TEST_F(Uses, AForkedChildDoesNotCountWhatItsParentDid) {
    {
        Cache cache(options(), log.logger);
        cache.count_use(5, 0);
        const ::pid_t child = ::fork();
        if (child == 0) {
            cache.~Cache();
            ::_exit(0);
        }
        ::waitpid(child, nullptr, 0);
    }
    EXPECT_EQ(counts().hits, 5u);
}

TEST_F(Uses, LinesThatMakeNoSenseArePassedOver) {
    testing::write_file(use_counts_file(root()), "1 2 3\n\nx\n1 2\n1 2 3 4\n-\n10 20 30\n5 5");
    EXPECT_EQ(counts().hits, 11u);
    EXPECT_EQ(counts().misses, 22u);
    EXPECT_EQ(counts().evictions, 33u);
}

TEST_F(Uses, NumbersThatNoProcessWroteArePassedOver) {
    for (const char* line : {"-1 0 0", "+1 0 0", " 1 0 0", "1  0 0", "1 0 0 ", "1\t0 0", "4294967297 0 0",
                             "0 0 18446744073709551615", "0 99999999999999999999 0", "0x1 0 0", "1 0 0\r"}) {
        EXPECT_EQ(decode_use_counts(std::string(line) + "\n1 2 3\n"), (UseCounts{1, 2, 3})) << line;
    }
    EXPECT_EQ(decode_use_counts("4294967296 0 0\n1 0 0\n").hits, 4294967297u);
}

TEST_F(Uses, EvictionsCount) {
    CacheOptions small = options();
    small.limit_bytes = 3 * encode_for(sample_key(1), sample_entry(1)).size();
    {
        Cache cache(small, log.logger);
        for (int number = 0; number < 10; ++number) {
            ASSERT_TRUE(cache.store(sample_key(number), sample_entry(number % 9)));
        }
    }
    EXPECT_EQ(counts().evictions + Cache(options(), log.logger).usage().entries, 10u);
}

TEST_F(Uses, AFileThatCannotBeReadIsAnError) {
    std::filesystem::create_directory(use_counts_file(root()));
    EXPECT_THROW(static_cast<void>(counts()), Error);
    use(1, 1);
}

TEST_F(Uses, AFileThatOthersMayWriteToIsAnError) {
    use(3, 1);
    std::filesystem::permissions(use_counts_file(root()), std::filesystem::perms::all);
    try {
        static_cast<void>(counts());
        FAIL() << "nothing was thrown";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::io);
        EXPECT_NE(
            std::string(error.what()).find(use_counts_file(root()).string() + ": its permissions are 0777, expected"),
            std::string::npos)
            << error.what();
    }
}

}  // namespace
}  // namespace smlora::cache
