// Whatever call fails while the cache is looked after: the answer is whole, or it says what is missing from it.
#include "cache/cache.hpp"
#include "cache/layer.hpp"
#include "fault/faulty_cache_test.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <functional>

namespace smlora::cache {
namespace {

using testing::Call;
using testing::FaultFileSystem;
using testing::sample_entry;
using testing::sample_key;

class InspectionFaults : public testing::FaultyCacheTest {
 protected:
    void fill() {
        testing::RecordingLog quiet;
        Cache cache(options(), quiet.logger);
        for (int number = 0; number < kernels; ++number) {
            if (std::filesystem::exists(entry_file(root(), sample_key(number)))) continue;
            ASSERT_TRUE(cache.store(sample_key(number), sample_entry(number)));
        }
        if (!std::filesystem::exists(record_file(root(), "GPU", sample_key(0)))) {
            ASSERT_TRUE(cache.store_record("GPU", sample_key(0), "{}"));
        }
        testing::write_file(bundle_file(root(), "GPU"), "{}");
    }

    /// Makes each call of `action` fail in turn, with each error; `action` tells whether its answer was whole or said
    /// so. Returns how many of the answers were not whole.
    int walk(const std::function<bool(Cache&, const testing::RecordingLog&)>& action) {
        int partial = 0;
        for (const int error : {-EIO, -EACCES, -ESTALE, -EMFILE, -ELOOP}) {
            bool reached = true;
            for (int n = 0; reached; ++n) {
                fill();
                FaultFileSystem disk;
                testing::RecordingLog lines;
                Cache cache(on(disk), lines.logger);
                disk.set_fault(testing::fail_call(n, error));
                partial += action(cache, lines) ? 0 : 1;
                reached = disk.calls() > n;
            }
        }
        return partial;
    }

    static constexpr int kernels = 3;
};

TEST_F(InspectionFaults, CountsAreWholeOrSayWhatIsMissing) {
    const int partial = walk([](Cache& cache, const auto&) {
        const CacheUsage usage = cache.usage();
        const bool whole = usage.entries == kernels && usage.records == 1 && usage.bundles == 1;
        EXPECT_TRUE(whole || !usage.unreadable.empty())
            << usage.entries << ' ' << usage.records << ' ' << usage.bundles;
        return whole;
    });
    EXPECT_GT(partial, 0);
}

TEST_F(InspectionFaults, VerifyNamesWhatItCannotRead) {
    const int partial = walk([](Cache& cache, const auto&) { return cache.verify().empty(); });
    // Every folder on the way, from the root, is opened and looked at; closing one tells nothing of what was read.
    const auto way = [](int folders) { return 2 * folders; };
    const int listed = (way(2) + 1) + 2 * (way(3) + 1) + (kernels + 1) * (way(4) + 1);
    const int looked_at = kernels + 2;
    // The second kernel and the third are found in the folder that stays open, and if not, by the way of the first.
    const int read = (way(4) + 3) + (way(4) + 3) + (way(3) + 3);
    EXPECT_EQ(partial, 5 * (listed + looked_at + read));
}

TEST_F(InspectionFaults, RecordsAreAllThereOrSomethingIsSaid) {
    const int partial = walk([](Cache& cache, const testing::RecordingLog& lines) {
        std::vector<CacheProblem> unreadable;
        const bool whole = cache.list_records(&unreadable).size() == 2;
        EXPECT_EQ(whole, unreadable.empty() && lines.warnings().empty());
        return whole;
    });
    EXPECT_GT(partial, 0);
}

TEST_F(InspectionFaults, ClearingRemovesAllOrThrows) {
    const auto is_whole = [](const std::function<std::uint64_t()>& clear, std::uint64_t expected) {
        try {
            EXPECT_EQ(clear(), expected);
            return true;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::io);
            EXPECT_NE(std::string(error.what()).find(" cannot be "), std::string::npos) << error.what();
            return false;
        }
    };
    EXPECT_GT(walk([&](Cache& cache, const auto&) { return is_whole([&] { return cache.clear(); }, kernels); }), 0);
    EXPECT_GT(walk([&](Cache& cache, const auto&) { return is_whole([&] { return cache.clear_records(); }, 2); }), 0);
}

TEST_F(InspectionFaults, PruningRemovesAllOrSaysWhatItDidNot) {
    for (const std::string arch : {"", "sm_90a"}) {
        const int partial = walk([&](Cache& cache, const auto&) {
            const PruneReport report = cache.prune({arch, std::nullopt, 0, false});
            EXPECT_TRUE(report.removed == kernels || !report.problems.empty()) << report.removed;
            return report.problems.empty();
        });
        EXPECT_GT(partial, 0);
    }
}

TEST_F(InspectionFaults, OneFolderThatCannotBeReadKeepsNoOtherFromBeingCleared) {
    fill();
    FaultFileSystem disk;
    Cache cache(on(disk), log.logger);
    int folders = 0;
    disk.set_fault([&](const testing::CallRecord& record) {
        // Of kernels, of the first kernel.
        return record.call == Call::list && ++folders == 2 ? -EACCES : 0;
    });
    EXPECT_THROW(cache.clear(), Error);
    disk.set_fault({});
    EXPECT_EQ(cache.usage().entries, 1u);
    EXPECT_EQ(cache.clear(), 1u);
}

TEST_F(InspectionFaults, AFolderThatIsNotThereIsEmpty) {
    Cache cache(options(), log.logger);
    EXPECT_TRUE(cache.usage().unreadable.empty());
    EXPECT_TRUE(cache.verify().empty());
    EXPECT_EQ(cache.clear(), 0u);
    EXPECT_EQ(cache.clear_records(), 0u);
}

}  // namespace
}  // namespace smlora::cache
