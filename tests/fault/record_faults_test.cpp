// Whatever call fails while a tuning record is stored or read: a reader has the old text, the new one or none.
#include "cache/cache.hpp"
#include "cache/layer.hpp"
#include "fault/faulty_cache_test.hpp"

#include <gtest/gtest.h>

namespace smlora::cache {
namespace {

using testing::FaultFileSystem;
using testing::sample_key;

constexpr const char* folder = "NVIDIA_H200";
const std::string old_text = R"({"the":"old"})";
const std::string new_text = R"({"the":"new one, which is longer"})";

class RecordFaults : public testing::FaultyCacheTest {
 protected:
    void start_over(bool with_old) {
        std::filesystem::remove_all(root());
        if (!with_old) return;
        testing::write_file(record_file(root(), folder, sample_key(0)), old_text);
        std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
    }

    static std::string text_in(const Cache& cache) {
        for (const StoredFile& file : cache.record_files(folder, sample_key(0))) {
            if (const auto record = cache.read_record(file)) return record->text;
        }
        return {};
    }

    /// What a process that comes later reads.
    std::string found_later() {
        testing::RecordingLog later;
        return text_in(Cache(options(), later.logger));
    }
};

TEST_F(RecordFaults, OneFailureOfAStoreIsAllOrNothing) {
    for (const bool with_old : {false, true}) {
        const std::string before = with_old ? old_text : "";
        for (const int error : {-ENOSPC, -EIO, -EACCES, -EROFS, -EDQUOT, -EMFILE}) {
            int failures = 0;
            bool reached = true;
            for (int n = 0; reached; ++n) {
                start_over(with_old);
                testing::RecordingLog lines;
                FaultFileSystem disk;
                Cache cache(on(disk), lines.logger);
                disk.set_fault(testing::fail_call(n, error));
                const bool stored = cache.store_record(folder, sample_key(0), new_text);
                reached = disk.calls() > n;
                EXPECT_EQ(found_later(), stored ? new_text : before) << "call " << n;
                EXPECT_EQ(lines.warnings().size(), stored ? 0u : 1u) << "call " << n;
                failures += stored ? 0 : 1;
            }
            EXPECT_GE(failures, 4) << "opening, writing, syncing, closing and renaming matter at least";
        }
    }
}

TEST_F(RecordFaults, ADeathAtAnyCallOfAStoreLeavesTheOldOrTheNew) {
    for (const bool with_old : {false, true}) {
        for (const auto torn : {FaultFileSystem::Torn::no, FaultFileSystem::Torn::half}) {
            bool reached = true;
            for (int n = 0; reached; ++n) {
                start_over(with_old);
                testing::RecordingLog lines;
                FaultFileSystem disk;
                disk.torn = torn;
                Cache cache(on(disk), lines.logger);
                disk.set_fault(testing::die_at_call(n));
                const bool stored = cache.store_record(folder, sample_key(0), new_text);
                reached = disk.calls() > n;
                const std::string found = found_later();
                EXPECT_TRUE(found == new_text || (!stored && found == (with_old ? old_text : "")))
                    << n << ": " << found;
            }
        }
    }
}

TEST_F(RecordFaults, OneFailureOfAReadIsTheTextOrNothing) {
    start_over(true);
    for (const int error : {-EIO, -EACCES, -ESTALE, -ENOENT, -EMFILE, -ENOMEM}) {
        int misses = 0;
        bool reached = true;
        for (int n = 0; reached; ++n) {
            testing::RecordingLog lines;
            FaultFileSystem disk;
            const Cache cache(on(disk), lines.logger);
            disk.set_fault(testing::fail_call(n, error));
            const std::string text = text_in(cache);
            reached = disk.calls() > n;
            EXPECT_TRUE(text == old_text || text.empty()) << text;
            misses += text.empty() ? 1 : 0;
            EXPECT_LE(lines.warnings().size(), 1u);
            disk.set_fault({});
            EXPECT_EQ(text_in(cache), old_text) << "call " << n;
        }
        EXPECT_GE(misses, 3) << "opening, asking for the size and reading matter at least";
    }
}

}  // namespace
}  // namespace smlora::cache
