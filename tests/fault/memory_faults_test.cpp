// Whatever allocation fails of those that are as large as a file says: it is a hit or a miss, and the file stays.
#include "cache/cache.hpp"
#include "fault/failing_memory.hpp"
#include "tuning/record_store.hpp"
#include "unit/cache/fixtures.hpp"
#include "unit/tuning/sample_tunings.hpp"
#include "util/printable.hpp"

#include <gtest/gtest.h>

#include <utility>

namespace smlora::cache {
namespace {

using testing::sample_entry;
using testing::sample_key;
using tuning::testing::here;
using tuning::testing::sample_name;
using tuning::testing::sample_tuning;

const std::string long_text(300'000, 'x');

class MemoryFaults : public testing::CacheTest {
 protected:
    /// With so much text and code that they take memory that is not small.
    static KernelEntry large_entry() {
        KernelEntry entry = sample_entry(1, 500'000);
        entry.metadata["source"] = long_text;
        return entry;
    }

    /// Calls `read` with the first allocation that is not small failing, then the second and so on, until none is left
    /// to fail; how often there was no result.
    template <class Read>
    int misses(const Read& read) {
        int misses = 0;
        for (long n = 0;; ++n) {
            testing::memory = {.left = n};
            const bool hit = read();
            const bool failed = std::exchange(testing::memory, {}).left < 0;
            misses += hit ? 0 : 1;
            if (!failed) return misses;
        }
    }
};

TEST_F(MemoryFaults, OfALoadAreMisses) {
    Cache cache(options(), log.logger);
    ASSERT_TRUE(cache.store(sample_key(0), large_entry()));
    std::optional<KernelEntry> entry;
    const int failures = misses([&] {
        entry = cache.load(sample_key(0));
        return entry.has_value();
    });
    testing::expect_same(entry, large_entry());
    EXPECT_GE(failures, 4) << "the file, the text of its metadata and the cubin at least";
    EXPECT_EQ(log.warnings().size(), 1u);
}

TEST_F(MemoryFaults, OfOneLayerLeadToTheNext) {
    CacheOptions both = options();
    both.layers = {scratch.path() / "lower"};
    CacheOptions lower = options();
    lower.root = both.layers->front();
    ASSERT_TRUE(Cache(lower, log.logger).store(sample_key(0), sample_entry(1)));
    // Sparse: it takes no place on the disk, and memory that is not there.
    const std::filesystem::path file = entry_file(root(), sample_key(0));
    testing::write_file(file, "");
    std::filesystem::resize_file(file, largest_entry);
    Cache cache(both, log.logger);
    testing::memory = {.left = 0, .lasting = true};
    const auto entry = cache.load(sample_key(0));
    testing::memory = {};
    testing::expect_same(entry, sample_entry(1));
    EXPECT_TRUE(std::filesystem::exists(file)) << "there may be memory for it later";
    ASSERT_EQ(log.warnings().size(), 1u);
    EXPECT_NE(log.warnings()[0].find("it cannot be read: Cannot allocate memory"), std::string::npos);
}

TEST_F(MemoryFaults, OfARecordAreMisses) {
    Cache cache(options(), log.logger);
    tuning::Tuning tuning = sample_tuning();
    tuning.trials[3].why = long_text;
    ASSERT_TRUE(tuning::RecordStore(cache, log.logger).save(sample_name(), tuning));
    std::optional<tuning::Tuning> found;
    const int failures = misses([&] {
        found = tuning::RecordStore(cache, log.logger).find(sample_name(), "forward", here());
        return found.has_value();
    });
    ASSERT_TRUE(found.has_value());
    tuning.trials[3].why = util::printable(long_text, 4000);
    tuning::testing::expect_same(*found, tuning);
    EXPECT_GE(failures, 4) << "the file, its text and what its checksum is of at least";

    // What could not be read is not remembered as missing.
    tuning::RecordStore store(cache, log.logger);
    testing::memory = {.left = failures / 2};
    const auto without_memory = store.find(sample_name(), "forward", here());
    testing::memory = {};
    EXPECT_FALSE(without_memory.has_value());
    EXPECT_TRUE(store.find(sample_name(), "forward", here()).has_value());
}

}  // namespace
}  // namespace smlora::cache
