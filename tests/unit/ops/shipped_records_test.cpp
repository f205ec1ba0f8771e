// The records that the project ships parse, lie where they belong, match the templates and name legal candidates.
#include "ops/record_check.hpp"
#include "tuning_fixtures.hpp"

#include <fstream>

namespace smlora::ops {
namespace {

/// What is wrong with the records of a layer, by file; `records` counts them.
std::vector<std::string> complaints(const std::filesystem::path& layer, Engine& engine, int& records) {
    std::vector<std::string> all;
    util::Logger log([&](LogLevel, std::string_view line) { all.emplace_back(line); });
    cache::CacheOptions options;
    options.root = layer;
    options.layers.emplace();
    const cache::Cache cache(options, log);
    records = 0;
    for (const cache::RecordText& stored : cache.list_records()) {
        ++records;
        const RecordCheck check = check_record(stored, engine.impl().kernels);
        for (const auto* list : {&check.unsound, &check.stale}) {
            for (const std::string& what : *list) all.push_back(stored.file.filename().string() + ": " + what);
        }
    }
    return all;
}

using ShippedRecords = Tuning;

TEST_F(ShippedRecords, AreFitToBeUsed) {
    unsetenv("SMLORA_INSTRUCTIONS");
    Engine made = engine(TuningPolicy::record_only);
    // A copy, as a checkout may be writable by its group.
    const std::filesystem::path copy = scratch.path() / "shipped";
    std::filesystem::copy(SMLORA_SHIPPED_LAYER, copy, std::filesystem::copy_options::recursive);
    std::size_t files = 0;
    for (const auto& item : std::filesystem::recursive_directory_iterator(copy)) {
        const bool folder = item.is_directory();
        std::filesystem::permissions(item.path(),
                                     folder ? std::filesystem::perms::owner_all : std::filesystem::perms::owner_read);
        if (!folder && item.path().extension() == ".json") ++files;
    }
    std::filesystem::permissions(copy, std::filesystem::perms::owner_all);
    int records = 0;
    EXPECT_EQ(complaints(copy, made, records), std::vector<std::string>{});
    EXPECT_EQ(static_cast<std::size_t>(records), files) << "every JSON file is a record where records lie";
}

TEST_F(ShippedRecords, ThatAreBadAreFoundOut) {
    Engine made = engine(TuningPolicy::record_only);
    const std::filesystem::path root = scratch.path() / "cache";
    const KnownWork work = made.impl().tuner.look_up(problem, forward, h200()).at(0);
    const std::filesystem::path file = cache::record_file(root, "NVIDIA_H200", work.name.key());
    int records = 0;
    const auto expect_complaint = [&](const std::string& part) {
        const std::vector<std::string> found = complaints(root, made, records);
        ASSERT_EQ(found.size(), 1u) << part;
        EXPECT_NE(found[0].find(part), std::string::npos) << found[0];
    };
    const auto plant = [&](const std::function<void(tune::Tuning&)>& change) {
        made.impl().cache.clear_records();
        record(made, work, another(work.space), true, change);
    };

    plant({});
    EXPECT_EQ(complaints(root, made, records), std::vector<std::string>{});
    EXPECT_EQ(records, 1);
    const std::string sound = testing::contents_of(file);

    plant([](auto& tuning) { tuning.environment.templates = "00"; });
    expect_complaint("was measured with templates 00");
    plant([](auto& tuning) {
        tuning.trials[3].candidate.configuration.values[0].second = 4096;
        tuning.choice = tuning.trials[3].candidate.configuration;
    });
    expect_complaint("chose what is no legal candidate: {\"family\":\"grouped_product_mma\",\"TILE_M\":4096");
    plant([](auto& tuning) { tuning.choice.reset(); });
    expect_complaint("has no choice");
    plant([](auto& tuning) { tuning.slot = "sideways"; });
    expect_complaint("is no piece of work");
    plant([](auto& tuning) { tuning.environment.arch = "sm_1"; });
    expect_complaint("sm_1");
    plant([](auto& tuning) { tuning.environment.gpu = "another"; });
    expect_complaint("another GPU");
    testing::write_file(file, sound.substr(0, sound.size() - 20));
    expect_complaint("no JSON object");
    std::filesystem::remove(file);
    testing::write_file(cache::record_file(root, "NVIDIA_H200", std::string(32, 'a')), sound);
    expect_complaint("under the name of another record");
}

TEST(ProblemText, IsReadBack) {
    Problem problem = small_problem();
    for (const bool rich : {false, true}) {
        if (rich) {
            problem.dtype = DType::fp16;
            problem.adapter_dtype = DType::fp32;
            problem.weight_layout = WeightLayout::enk;
            problem.x_rows = RowOrder::grouped;
            problem.y_rows = RowOrder::token;
            problem.bias = problem.gates = true;
            problem.gate_dtype = DType::fp16;
            problem.index_dtype = DType::int64;
        }
        const auto read = problem_from_text(to_string(problem));
        ASSERT_TRUE(read.has_value()) << to_string(problem);
        EXPECT_EQ(*read, problem);
    }
    for (const char* text :
         {"", "E8", "E8 K64 N32 R4 k2 bf17 ekn token->scattered", "E8 K64 N32 R4 k2 bf16 ekn token->scattered more",
          "E0 K64 N32 R4 k2 bf16 ekn token->grouped"}) {
        EXPECT_FALSE(problem_from_text(text).has_value()) << text;
    }
}

}  // namespace
}  // namespace smlora::ops
