#include "cache/inspection.hpp"

#include "unit/cache/fixtures.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <map>

namespace smlora::cache {
namespace {

using testing::sample_entry;

const std::string key_a = "ab000000000000000000000000000001";
const std::string key_b = "ab000000000000000000000000000002";
const std::string key_c = "cd000000000000000000000000000003";

class Inspection : public testing::CacheTest {
 protected:
    Inspection() : cache(options(), log.logger) {}

    void store(const std::string& key, std::chrono::seconds age) {
        ASSERT_TRUE(cache.store(key, sample_entry(7)));
        testing::set_age(entry_file(root(), key), age);
    }

    std::vector<std::string> keys() {
        std::vector<std::string> found;
        for (const CacheEntryInfo& info : cache.list()) found.push_back(info.key);
        return found;
    }

    std::string inspection_error(const std::string& prefix) {
        try {
            static_cast<void>(cache.inspect(prefix));
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            return error.what();
        }
        return "";
    }

    Cache cache;
};

TEST_F(Inspection, ListsNewestFirst) {
    store(key_a, std::chrono::hours(3));
    store(key_b, std::chrono::hours(1));
    store(key_c, std::chrono::hours(2));
    EXPECT_EQ(keys(), (std::vector{key_b, key_c, key_a}));
}

TEST_F(Inspection, ListLeavesUnsoundEntriesOut) {
    store(key_a, std::chrono::hours(3));
    testing::write_file(entry_file(root(), key_b), "damaged");
    testing::write_file(entry_file(root(), key_a).parent_path() / ".tmp-1-00", "half");
    testing::write_file(entry_file(root(), key_a).parent_path() / "notes", "text");
    EXPECT_EQ(keys(), std::vector{key_a});
    EXPECT_TRUE(std::filesystem::exists(entry_file(root(), key_b)));
    EXPECT_EQ(cache.rejected(), 0u);
}

TEST_F(Inspection, TellsWhatTheEntryNotes) {
    const KernelEntry entry{{{"kernel", "forward E=8"},
                             {"arch", "sm_90a"},
                             {"compiler", "nvrtc 13.0.88"},
                             {"registers", 168},
                             {"spill_bytes", 24},
                             {"shared_bytes", 1024},
                             {"dynamic_shared", 98304},
                             {"compile_seconds", 0.375}},
                            testing::fake_cubin(100, 'x')};
    ASSERT_TRUE(cache.store(key_a, entry));
    const CacheEntryInfo info = cache.inspect(key_a);
    EXPECT_EQ(info.key, key_a);
    EXPECT_EQ(info.file, entry_file(root(), key_a));
    EXPECT_EQ(info.kernel, "forward E=8");
    EXPECT_EQ(info.arch, "sm_90a");
    EXPECT_EQ(info.compiler, "nvrtc 13.0.88");
    EXPECT_EQ(info.registers, 168);
    EXPECT_EQ(info.spill_bytes, 24);
    EXPECT_EQ(info.shared_bytes, 1024);
    EXPECT_EQ(info.compile_seconds, 0.375);
    EXPECT_EQ(info.file_bytes, std::filesystem::file_size(info.file));
    EXPECT_EQ(nlohmann::json::parse(info.metadata).at("dynamic_shared"), 98304);
}

TEST_F(Inspection, FieldsOfTheWrongTypeReadAsNothing) {
    ASSERT_TRUE(cache.store(
        key_a, {{{"kernel", 3}, {"registers", "many"}, {"spill_bytes", 1e300}, {"compile_seconds", nullptr}},
                testing::fake_cubin(100, 'x')}));
    const CacheEntryInfo info = cache.inspect(key_a);
    EXPECT_EQ(info.kernel, "");
    EXPECT_EQ(info.registers, 0);
    EXPECT_EQ(info.spill_bytes, 0);
    EXPECT_EQ(info.compile_seconds, 0);
}

TEST_F(Inspection, AUniqueBeginningOfAKeyIsEnough) {
    store(key_a, std::chrono::hours(1));
    store(key_b, std::chrono::hours(1));
    store(key_c, std::chrono::hours(1));
    EXPECT_EQ(cache.inspect("c").key, key_c);
    EXPECT_EQ(cache.inspect(key_b).key, key_b);
    const std::string several = inspection_error("ab");
    EXPECT_NE(several.find("2 entries begin with \"ab\""), std::string::npos) << several;
    EXPECT_NE(inspection_error("ef").find("\"ef\""), std::string::npos);
    for (const char* wrong : {"", "xyz", "AB", "../ab", "ab0000000000000000000000000000011"}) {
        EXPECT_NE(inspection_error(wrong).find("hexadecimal"), std::string::npos) << wrong;
    }
}

TEST_F(Inspection, AKeyInSeveralLayersIsOneAndTheUpperOne) {
    const std::filesystem::path layer = scratch.path() / "layer";
    CacheOptions below = options();
    below.root = layer;
    Cache lower(below, log.logger);
    ASSERT_TRUE(lower.store(key_a, sample_entry(1)));
    ASSERT_TRUE(lower.store(key_c, sample_entry(1)));
    ASSERT_TRUE(cache.store(key_a, sample_entry(2)));
    CacheOptions both = options();
    both.layers = {{layer}};
    const Cache layered(both, log.logger);
    EXPECT_EQ(layered.inspect("ab").file, entry_file(root(), key_a));
    EXPECT_EQ(layered.inspect("cd").file, entry_file(layer, key_c));
    EXPECT_EQ(layered.list().size(), 3u);
    EXPECT_EQ(layered.usage().entries, 1u) << "of the writable layer";
}

TEST_F(Inspection, VerifyNamesEveryUnsoundFileAndRemovesNone) {
    store(key_a, std::chrono::hours(1));
    EXPECT_TRUE(cache.verify().empty());
    std::string bytes = testing::contents_of(entry_file(root(), key_a));
    bytes[60] = static_cast<char>(bytes[60] ^ 1);
    testing::write_file(entry_file(root(), key_b), bytes);
    testing::write_file(entry_file(root(), key_c), "");
    const auto problems = cache.verify();
    ASSERT_EQ(problems.size(), 2u);
    for (const UnsoundFile& problem : problems) {
        EXPECT_EQ(problem.why,
                  problem.file == entry_file(root(), key_b) ? "the hash does not match the content" : "only 0 bytes");
        EXPECT_TRUE(std::filesystem::exists(problem.file));
    }
}

TEST_F(Inspection, VerifyNamesRecordsAndBundlesThatMayNotOrCannotBeRead) {
    ASSERT_TRUE(cache.store_record("GPU", key_a, "{}"));
    ASSERT_TRUE(cache.store_record("GPU", key_b, "{}"));
    EXPECT_TRUE(cache.verify().empty());
    const std::filesystem::path record = record_file(root(), "GPU", key_a);
    std::filesystem::permissions(record, std::filesystem::perms::all);
    const std::filesystem::path bundle = bundle_file(root(), "GPU");
    ASSERT_EQ(::mkfifo(bundle.c_str(), 0600), 0);
    const std::filesystem::path large = record_file(root(), "GPU", key_b);
    std::filesystem::resize_file(large, 17 << 20);
    std::map<std::filesystem::path, UnsoundFile> problems;
    for (const UnsoundFile& problem : cache.verify()) problems[problem.file] = problem;
    ASSERT_EQ(problems.size(), 3U);
    EXPECT_NE(problems[record].why.find("write"), std::string::npos) << problems[record].why;
    EXPECT_EQ(problems[bundle].why, "it is not a regular file");
    EXPECT_EQ(problems[large].why, "17825792 bytes, more than any record has");
    for (const auto& [file, problem] : problems) EXPECT_TRUE(problem.useless) << file;
}

TEST_F(Inspection, ClearRemovesEveryEntrySoundOrNot) {
    store(key_a, std::chrono::hours(1));
    store(key_c, std::chrono::hours(1));
    testing::write_file(entry_file(root(), key_b), "damaged");
    const auto foreign = entry_file(root(), key_a).parent_path() / "notes";
    testing::write_file(foreign, "text");
    EXPECT_EQ(cache.clear(), 3u);
    EXPECT_EQ(cache.clear(), 0u);
    EXPECT_FALSE(cache.load(key_a).has_value());
    EXPECT_TRUE(std::filesystem::exists(foreign));
    EXPECT_TRUE(cache.store(key_a, sample_entry(1)));
}

}  // namespace
}  // namespace smlora::cache
