// tune as far as it goes without a GPU, and what becomes of records.
#include "tuning_commands.hpp"

#include <array>

namespace smlora::tool {
namespace {

TEST_F(TuningCommands, TuneNeedsAGpu) {
    if (!run({"info", "--json"}).json()["devices"].empty()) GTEST_SKIP() << "there is a GPU";
    const Outcome outcome = run({"tune", "--shape", "8,256,512,16,2", "--tokens", "64"});
    EXPECT_EQ(outcome.exit_code, 3) << outcome.err;
    EXPECT_EQ(outcome.out, "");
}

TEST_F(TuningCommands, TuneRefusesWhatMakesNoSense) {
    const std::vector<std::string> tune{"tune", "--shape", "8,256,512,16,2"};
    for (const auto& [option, value, part] : std::vector<std::array<std::string, 3>>{
             {"--shard", "4/4", "--shard: expected INDEX/COUNT"},
             {"--budget", "-3", "--budget: expected a number above 0, got '-3'"},
             {"--compile-ahead", "-1", "--compile-ahead: expected a whole number from 0 to"},
             {"--tokens", "0", "--tokens: expected at least 1"},
             {"--memory", "much", "--memory: expected bytes"},
             {"--memory", "0", "--memory: expected bytes above 0, or such a number with K, M or G, got '0'"},
             {"--device", "cpu", "--device: expected cuda"},
             {"--skew", "left", "--skew"},
         }) {
        const Outcome outcome = run(with(with(tune, option), value));
        EXPECT_EQ(outcome.exit_code, 2) << option << " " << outcome.err;
        EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
    }
    EXPECT_EQ(run({"tune"}).exit_code, 2);
}

TEST_F(TuningCommands, TuneRefusesARankThatThereIsNot) {
    const Outcome outcome =
        run({"tune", "--shape", "8,256,512,16,2"}, {{"RANK", "5"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "1"}});
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_EQ(outcome.err, "smlora-tune: RANK: expected 0 to 3, as WORLD_SIZE is 4, got \"5\"\n");
}

TEST_F(TuningCommands, APolicyThatIsNoneIsRefused) {
    for (const std::vector<std::string>& command : {explain, {"verify", "--device", "cpu", "--shape", "4,64,64,4,2"}}) {
        const Outcome outcome = run(command, {{"SMLORA_TUNING", "always"}});
        EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
        EXPECT_NE(outcome.err.find("SMLORA_TUNING: expected first-use, off or record-only, got \"always\""),
                  std::string::npos)
            << outcome.err;
    }
}

TEST_F(TuningCommands, ADeterminismThatIsNoneIsRefused) {
    for (const std::vector<std::string>& command : {explain, {"verify", "--device", "cpu", "--shape", "4,64,64,4,2"}}) {
        const Outcome outcome = run(command, {{"SMLORA_DETERMINISM", "on"}});
        EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
        EXPECT_NE(outcome.err.find("SMLORA_DETERMINISM: expected run or batch, got \"on\""), std::string::npos)
            << outcome.err;
    }
}

TEST_F(TuningCommands, BatchInvariantChoicesAreExplainedForTheOneNumberOfTokens) {
    const Outcome outcome = run(with(explain, "--json"), {{"SMLORA_DETERMINISM", "batch"}});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_NE(outcome.err.find("kernels are chosen as for 4096 tokens"), std::string::npos) << outcome.err;
    const nlohmann::json cases = outcome.json()["cases"];
    ASSERT_EQ(cases.size(), 1u);
    EXPECT_EQ(cases[0]["tokens"], 4096);
    EXPECT_NE(run(with(explain, "--json")).json()["cases"][0]["tokens"], 4096);
}

TEST_F(TuningCommands, RecordsAreClearedWhenTheyAreNamed) {
    plant_record();
    EXPECT_EQ(run({"cache", "clear", "--yes"}).out, cache().string() + ": 0 kernels removed, 1 tuning record left\n");
    EXPECT_EQ(run({"cache", "clear", "nothing"}).exit_code, 2);
    EXPECT_EQ(run({"cache", "clear", "records", "--yes"}).out,
              cache().string() + ": 0 kernels left, 1 tuning record removed\n");
    EXPECT_EQ(run({"cache", "stats", "--json"}).json()["records"], 0);
    plant_record();
    const nlohmann::json all = run({"cache", "clear", "all", "--yes", "--json"}).json();
    EXPECT_EQ(all["removed_records"], 1);
    EXPECT_EQ(all["records_left"], 0);
}

}  // namespace
}  // namespace smlora::tool
