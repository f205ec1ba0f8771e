// Whatever call fails while entries are evicted: what is there is sound, what is used stays, and the limit holds again
// once the fault is over.
#include "cache/cache.hpp"
#include "cache/layer.hpp"
#include "fault/faulty_cache_test.hpp"

#include <gtest/gtest.h>

#include <functional>

namespace smlora::cache {
namespace {

using testing::FaultFileSystem;
using testing::sample_entry;
using testing::sample_key;

class EvictionFaults : public testing::FaultyCacheTest {
 protected:
    static constexpr int before = 12;      ///< entries, the first the oldest
    static constexpr int in_use = 6;       ///< of these the last ones, which are never among those unused for longest
    static constexpr int new_number = 20;  ///< what is stored into the full layer

    [[nodiscard]] CacheOptions full_on(FaultFileSystem& disk) {
        CacheOptions chosen = on(disk);
        chosen.limit_bytes = limit();
        return chosen;
    }

    /// Of the largest.
    [[nodiscard]] static std::uint64_t entry_bytes() {
        return encode_for(sample_key(new_number), sample_entry(new_number)).size();
    }
    /// The next store evicts.
    [[nodiscard]] static std::uint64_t limit() { return before * entry_bytes(); }

    /// A full layer with leftovers of a dead process, of which no upkeep is known.
    void fill() {
        std::filesystem::remove_all(root());
        for (int number = 0; number < before; ++number) {
            const std::filesystem::path file = entry_file(root(), sample_key(number));
            testing::write_file(file, encode_for(sample_key(number), sample_entry(number)));
            testing::set_age(file, std::chrono::hours(2 * (before - number)));
        }
        std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
        const std::filesystem::path leftover = entry_file(root(), sample_key(0)).parent_path() / ".tmp-1-leftover";
        testing::write_file(leftover, "half");
        testing::set_age(leftover, std::chrono::hours(2));
    }

    /// What a process finds that comes later, when nothing fails any more.
    void expect_sound(bool stored, const std::string& when) {
        testing::RecordingLog later;
        FaultFileSystem disk;
        Cache cache(full_on(disk), later.logger);
        EXPECT_TRUE(cache.verify().empty()) << when;
        for (int number = 0; number < before; ++number) {
            const auto entry = cache.load(sample_key(number));
            if (entry) testing::expect_same(entry, sample_entry(number));
            if (number >= before - in_use) {
                EXPECT_TRUE(entry.has_value())
                    << when << ": lost " << number << ", which others had been unused before";
            }
        }
        if (stored) {
            EXPECT_TRUE(cache.load(sample_key(new_number)).has_value()) << when << ": acknowledged and lost";
        }
        EXPECT_EQ(cache.rejected(), 0u) << when;

        ASSERT_TRUE(cache.store(sample_key(new_number + 1), sample_entry(new_number + 1))) << when;
        EXPECT_LE(cache.usage().bytes, limit() + 2 * entry_bytes()) << when;
    }

    /// Stores into a full layer with the fault at each call in turn; returns how often the oldest entry was evicted.
    int walk(const std::string& fault, const std::function<FaultFileSystem::Fault(int)>& at_call) {
        int evicted = 0;
        bool reached = true;
        for (int n = 0; reached; ++n) {
            fill();
            testing::RecordingLog lines;
            FaultFileSystem disk;
            bool stored = false;
            {
                Cache cache(full_on(disk), lines.logger);
                disk.set_fault(at_call(n));
                stored = cache.store(sample_key(new_number), sample_entry(new_number));
            }
            reached = disk.calls() > n;  // with those of the thread that goes on with the upkeep
            EXPECT_LE(lines.warnings().size(), 1u);
            evicted += std::filesystem::exists(entry_file(root(), sample_key(0))) ? 0 : 1;
            expect_sound(stored, fmt::format("{} at call {}", fault, n));
        }
        return evicted;
    }
};

TEST_F(EvictionFaults, OneFailureLosesNothingInUse) {
    for (const int error : {-EIO, -ENOENT, -EMFILE}) {
        walk(util::describe_error(error), [error](int n) { return testing::fail_call(n, error); });
    }
}

TEST_F(EvictionFaults, ADeathAtAnyCallLosesNothingInUse) {
    EXPECT_GE(walk("death", testing::die_at_call), 2) << "the test is to meet deaths between two evictions";
}

}  // namespace
}  // namespace smlora::cache
