// Tuning from end to end, on the emulated GPU: what is measured there is the emulator, but everything else is real.
#include "program.hpp"

#include <algorithm>
#include <fstream>
#include <set>
#include <thread>

#ifdef SMLORA_EMULATOR_LIBRARIES

namespace smlora::tool {
namespace {

class EmulatedTuning : public ProgramTest {
 protected:
    [[nodiscard]] Outcome run_emulated(const std::vector<std::string>& arguments,
                                       std::map<std::string, std::string> environment = {}) const {
        environment.insert({{"SMLORA_CACHE_DIR", cache().string()},
                            {"SMLORA_CACHE_LAYERS", ""},
                            {"LD_LIBRARY_PATH", SMLORA_EMULATOR_LIBRARIES}});
        return run_program(arguments, environment);
    }

    /// By slot.
    static std::map<std::string, nlohmann::json> works(const Outcome& outcome) {
        std::map<std::string, nlohmann::json> found;
        EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
        const nlohmann::json document = outcome.json();
        for (const auto& work : document["cases"][0]["works"]) found[work["slot"]] = work;
        return found;
    }

    /// Kernel templates of the test's own, with something else than the line that reads the scale.
    [[nodiscard]] std::string templates_with(const std::string& planted) const {
        const std::filesystem::path templates = cache().parent_path() / "templates";
        std::filesystem::copy(SMLORA_KERNEL_TEMPLATES, templates, std::filesystem::copy_options::recursive);
        const std::filesystem::path file = templates / "grouped_product_mma.cuh";
        std::string text;
        {
            std::ifstream stream(file);
            text.assign(std::istreambuf_iterator<char>(stream), {});
        }
        const std::string sound = "auto of_row = finish.row(groups.scale_of(tile.group, args.scale));";
        EXPECT_NE(text.find(sound), std::string::npos) << "the template has changed: plant the fault elsewhere";
        text.replace(text.find(sound), sound.size(), planted);
        std::ofstream(file) << text;
        return templates.string();
    }

    [[nodiscard]] std::map<std::string, std::string> records() const {
        std::map<std::string, std::string> texts;
        const std::filesystem::path folder = cache() / "v1/tuning";
        if (!std::filesystem::exists(folder)) return texts;
        for (const auto& item : std::filesystem::recursive_directory_iterator(folder)) {
            if (item.path().extension() != ".json") continue;
            std::ifstream stream(item.path(), std::ios::binary);
            texts[item.path().string()] = {std::istreambuf_iterator<char>(stream), {}};
        }
        return texts;
    }
};

const std::vector<std::string> tune{"tune", "--shape",  "3,64,48,8,2", "--tokens",     "24", "--budget",
                                    "200",  "--rounds", "2",           "--candidates", "3",  "--json"};
const std::set<std::string> slots{"forward", "xa", "dx", "yb", "gradients"};

TEST_F(EmulatedTuning, TunesOnceAndThenFindsItsRecord) {
    const auto first = works(run_emulated(tune));
    for (const std::string& slot : slots) {
        ASSERT_TRUE(first.count(slot)) << slot;
        EXPECT_EQ(first.at(slot)["outcome"], "tuned") << slot;
        EXPECT_GT(first.at(slot)["median_seconds"], 0) << slot;
    }
    const auto recorded = records();
    ASSERT_EQ(recorded.size(), 1u) << "one record for a problem and number of tokens";
    const nlohmann::json record = nlohmann::json::parse(recorded.begin()->second);
    for (const auto& tuning : record["tunings"]) {
        EXPECT_EQ(tuning["workload"]["routing"], "uniform");
        for (const auto& candidate : tuning["candidates"]) {
            EXPECT_EQ(candidate["why"], "") << tuning["slot"] << " " << candidate["name"];
            EXPECT_LT(candidate["error"], 1e-2);
        }
    }
    for (const auto& [slot, work] : works(run_emulated(tune))) {
        EXPECT_EQ(work["outcome"], "recorded") << slot;
        EXPECT_EQ(work["choice"], first.at(slot)["choice"]) << slot;
    }
    EXPECT_EQ(records(), recorded) << "nothing was measured or written again";

    std::vector<std::string> anew = tune;
    anew.insert(anew.end(), {"--again", "--skew", "zipf"});
    for (const auto& [slot, work] : works(run_emulated(anew))) EXPECT_EQ(work["outcome"], "tuned") << slot;
    ASSERT_EQ(records().size(), 1u);
    const nlohmann::json replaced = nlohmann::json::parse(records().begin()->second);
    ASSERT_EQ(replaced["tunings"].size(), slots.size());
    for (const auto& tuning : replaced["tunings"]) EXPECT_EQ(tuning["workload"]["routing"], "zipf");
    for (const auto& [slot, work] : works(run_emulated(tune))) {
        EXPECT_EQ(work["outcome"], "recorded") << slot;
        EXPECT_EQ(work["routing"], "zipf") << slot;
        EXPECT_EQ(work["complete"], true) << slot;
    }
    // What is there to the end stays until its successor is.
    const auto complete = records();
    std::replace(anew.begin(), anew.end(), std::string("200"), std::string("0.001"));
    const nlohmann::json cut_short = run_emulated(anew).json();
    for (const auto& work : cut_short["cases"][0]["works"]) EXPECT_NE(work["outcome"], "tuned") << work;
    EXPECT_EQ(records(), complete);

    std::vector<std::string> text = tune;
    std::erase(text, "--json");
    EXPECT_NE(run_emulated(text).out.find("recorded, routing zipf"), std::string::npos)
        << "though uniform was asked for";
}

TEST_F(EmulatedTuning, QuantisedWeightsAreTunedAsPlainOnesAndFindTheirRecord) {
    std::vector<std::string> quantised = tune;
    quantised.insert(quantised.end(), {"--weights", "nf4", "--weight-layout", "ekn"});
    const Outcome outcome = run_emulated(quantised);
    for (const auto& [slot, work] : works(outcome)) EXPECT_EQ(work["outcome"], "tuned") << slot;
    EXPECT_EQ(outcome.json()["cases"][0]["weights"], "nf4 block 64");
    EXPECT_NE(outcome.err.find("what is tuned and recorded are the products of plain weights"), std::string::npos)
        << outcome.err;
    ASSERT_EQ(records().size(), 1u);
    EXPECT_EQ(records().begin()->second.find("nf4"), std::string::npos);
    for (const auto& [slot, work] : works(run_emulated(tune))) EXPECT_EQ(work["outcome"], "recorded") << slot;
}

TEST_F(EmulatedTuning, WorkThatIsLeftWithoutAMeasuredChoiceFails) {
    std::vector<std::string> memory = tune;
    memory.insert(memory.end(), {"--memory", "1K"});
    const Outcome none = run_emulated(memory);
    EXPECT_EQ(none.exit_code, 1);
    EXPECT_NE(none.err.find("smlora-tune: 5 of 5 kernels not tuned; raise --memory for those marked \"out of "
                            "memory\", --budget (200 s) for the rest\n"),
              std::string::npos)
        << none.err;
    for (const auto& work : none.json()["cases"][0]["works"]) EXPECT_EQ(work["outcome"], "out of memory");
    // Where compiling takes all of the time, nothing is measured.
    std::vector<std::string> budget = tune;
    budget[6] = "0.001";
    const Outcome compiled = run_emulated(budget);
    EXPECT_EQ(compiled.exit_code, 1);
    EXPECT_NE(compiled.err.find("smlora-tune: 5 of 5 kernels not tuned"), std::string::npos) << compiled.err;
    EXPECT_EQ(run_emulated(tune).exit_code, 0);
    ASSERT_EQ(run_emulated({"cache", "clear", "records", "--yes"}).exit_code, 0);
    // Of what is compiled the first is measured whatever the time, and has a choice whether or not that was to the end.
    const Outcome part = run_emulated(budget);
    EXPECT_EQ(part.exit_code, 1);
    EXPECT_NE(part.err.find("smlora-tune: 4 of 5 kernels not tuned"), std::string::npos) << part.err;
    for (const auto& work : part.json()["cases"][0]["works"]) {
        const bool first = work["slot"] == "forward";
        EXPECT_EQ(work["choice"] != "", first) << work;
        EXPECT_EQ(work["reason"] == "other kernels used up the time", !first) << work;
    }
    // What is recorded needs neither.
    EXPECT_EQ(run_emulated(tune).exit_code, 0);
    for (const auto& [slot, work] : works(run_emulated(memory))) EXPECT_EQ(work["outcome"], "recorded") << slot;
}

TEST_F(EmulatedTuning, MeasuresHowArrangedWeightsAreTaken) {
    const std::vector<std::string> problem{"--shape",   "2,128,192,0,2",  "--tokens", "24",
                                           "--weights", "mxfp4:arranged", "--json"};
    std::vector<std::string> tuning{"tune", "--budget", "300", "--rounds", "1", "--candidates", "2"};
    tuning.insert(tuning.end(), problem.begin(), problem.end());
    const std::map<std::string, std::string> hopper{{"SMLORA_EMULATOR_GPU", "90"}};
    const auto first = works(run_emulated(tuning, hopper));
    for (const char* slot : {"forward decoding", "dx decoding"}) {
        ASSERT_TRUE(first.count(slot)) << slot;
        EXPECT_EQ(first.at(slot)["outcome"], "tuned") << first.at(slot);
    }
    for (const auto& [slot, work] : works(run_emulated(tuning, hopper))) EXPECT_EQ(work["outcome"], "recorded") << slot;
    std::vector<std::string> explain{"explain"};
    explain.insert(explain.end(), problem.begin(), problem.end());
    const auto explained = works(run_emulated(explain, hopper));
    for (const char* slot : {"forward decoding", "dx decoding"}) {
        EXPECT_EQ(explained.at(slot)["used"], first.at(slot)["choice"]) << slot;
        EXPECT_EQ(explained.at(slot)["record"], first.at(slot)["record"]) << slot;
    }
}

TEST_F(EmulatedTuning, WithNothingToChooseItSaysSo) {
    const Outcome outcome = run_emulated({"tune", "--shape", "3,64,48,8,2", "--tokens", "24", "--dtype", "fp32"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out,
              "E3 K64 N48 R8 k2 fp32 ekn token->scattered, 24 tokens: there is one kernel for each "
              "purpose, and nothing to choose\n\n");
}

TEST_F(EmulatedTuning, ExplainShowsTheGpuThatIsThereUnlessAnotherIsNamed) {
    for (const auto& [named, assumed] : std::vector<std::pair<std::string, bool>>{
             {"", false}, {"Emulated H200", false}, {"NVIDIA H100 80GB HBM3", true}}) {
        std::vector<std::string> arguments{"explain", "--shape", "3,64,48,8,2", "--tokens", "24", "--json"};
        if (!named.empty()) arguments.insert(arguments.end(), {"--gpu", named});
        const nlohmann::json document = run_emulated(arguments).json();
        EXPECT_EQ(document["gpu"], named.empty() ? "Emulated H200" : named);
        EXPECT_EQ(document["gpu_assumed"], assumed) << named;
    }
}

TEST_F(EmulatedTuning, WhatComesNextIsCompiledWhileTheGpuMeasures) {
    std::vector<std::string> arguments = tune;
    arguments[2] = "3,32,16,0,2";
    arguments.insert(arguments.end(), {"--shape", "3,16,32,0,2", "--compile-ahead", "1"});
    const Outcome outcome = run_emulated(arguments, {{"SMLORA_EMULATOR_GPU", "86"}});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const nlohmann::json together = outcome.json();
    ASSERT_EQ(together["cases"].size(), 2u);
    for (const auto& done : together["cases"]) {
        for (const auto& work : done["works"]) EXPECT_EQ(work["outcome"], "tuned") << work;
    }
    EXPECT_GT(together["compiled_ahead"], 0);
    EXPECT_LE(together["compiled_ahead"], together["compiled"]);
    // Nothing is compiled that measuring does not need.
    arguments.back() = "0";
    arguments.insert(arguments.end(), {"--cache-dir", (cache().parent_path() / "alone").string()});
    const Outcome alone = run_emulated(arguments, {{"SMLORA_EMULATOR_GPU", "86"}});
    ASSERT_EQ(alone.exit_code, 0) << alone.err;
    EXPECT_EQ(alone.json()["compiled_ahead"], 0);
    EXPECT_EQ(alone.json()["compiled"], together["compiled"]);
}

TEST_F(EmulatedTuning, ACandidateThatComputesSomethingElseIsRefused) {
    // The heuristic choice of the rank rows (rows of 64, columns of 16) is made wrong in one expert.
    const std::string templates = templates_with(
        "auto of_row = finish.row(C::TILE_M == 64 && C::TILE_N == 16 && C::STAGES == 6 && tile.group == 1 "
        "? 1.05F * args.scale : args.scale);");
    const auto found = works(run_emulated(tune, {{"SMLORA_TEMPLATE_DIR", templates}}));
    EXPECT_EQ(found.at("xa")["outcome"], "tuned");
    EXPECT_EQ(found.at("xa")["choice"].get<std::string>().find("mma_64x16x64_w4x1_s6"), std::string::npos);
    const nlohmann::json record = nlohmann::json::parse(records().begin()->second);
    int refused = 0;
    for (const auto& tuning : record["tunings"]) {
        for (const auto& candidate : tuning["candidates"]) {
            if (candidate["verdict"] != "refused") continue;
            ++refused;
            EXPECT_EQ(candidate["name"], "mma_64x16x64_w4x1_s6_b2");
            EXPECT_NE(candidate["why"].get<std::string>().find(" instead of "), std::string::npos);
        }
    }
    EXPECT_EQ(refused, 2) << "of xa and of yb";
}

TEST_F(EmulatedTuning, ACandidateThatFaultsIsNamedAndRefusedTheSecondTime) {
    const std::string templates = templates_with(
        "auto of_row = finish.row(args.scale); if (C::TILE_M == 64 && C::TILE_N == 32) "
        "*reinterpret_cast<volatile float*>(16) = args.scale;");
    const std::string name = "mma_64x32x64_w4x1_s5_b2";
    std::vector<std::string> arguments = tune;
    arguments[2] = "3,64,48,0,2";
    // Of forward, and then of dX.
    for (int fault = 0; fault < 4; ++fault) {
        const Outcome outcome = run_emulated(arguments, {{"SMLORA_TEMPLATE_DIR", templates}});
        EXPECT_EQ(outcome.exit_code, 1) << outcome.out;
        EXPECT_NE(outcome.err.find(name + ": "), std::string::npos) << outcome.err;
    }
    for (const auto& [slot, work] : works(run_emulated(arguments, {{"SMLORA_TEMPLATE_DIR", templates}}))) {
        EXPECT_EQ(work["complete"], true) << slot;
        EXPECT_NE(work["choice"], name) << slot;
    }
    int refused = 0;
    const nlohmann::json record = nlohmann::json::parse(records().begin()->second);
    for (const auto& tuning : record["tunings"]) {
        for (const auto& candidate : tuning["candidates"]) {
            if (candidate["name"] != name) continue;
            ++refused;
            EXPECT_EQ(candidate["verdict"], "refused") << candidate;
            EXPECT_TRUE(candidate["why"].get<std::string>().starts_with("failed twice: ")) << candidate;
        }
    }
    EXPECT_EQ(refused, 2);
}

TEST_F(EmulatedTuning, ProcessesThatStartTogetherGiveOneTuningAndOneChoice) {
    std::vector<std::map<std::string, nlohmann::json>> all(3);
    std::vector<std::thread> threads;
    for (auto& one : all) threads.emplace_back([&] { one = works(run_emulated(tune)); });
    for (std::thread& thread : threads) thread.join();
    for (const std::string& slot : slots) {
        int tuned = 0;
        for (const auto& one : all) {
            ASSERT_TRUE(one.count(slot)) << slot;
            tuned += one.at(slot)["outcome"] == "tuned" ? 1 : 0;
            EXPECT_EQ(one.at(slot)["choice"], all[0].at(slot)["choice"]) << slot;
        }
        EXPECT_EQ(tuned, 1) << slot;
    }
}

TEST_F(EmulatedTuning, VerifyTunesNothingUnlessItIsTold) {
    const std::vector<std::string> verify{"verify", "--shape", "3,64,48,8,2", "--tokens", "24", "-v"};
    const Outcome outcome = run_emulated(verify);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
    EXPECT_EQ(outcome.err.find("tuning "), std::string::npos) << outcome.err;
    EXPECT_TRUE(records().empty());
}

TEST_F(EmulatedTuning, TheChoiceIsComparedWithEveryLegalCandidate) {
    // Without an adapter, on the GPU that has the fewest candidates.
    std::vector<std::string> arguments = tune;
    arguments[2] = "3,16,16,0,2";
    arguments.emplace_back("--exhaustive");
    const Outcome outcome = run_emulated(arguments, {{"SMLORA_EMULATOR_GPU", "86"}});
    const auto usual = works(outcome);
    const nlohmann::json compared = outcome.json()["cases"][0]["exhaustive"];
    ASSERT_EQ(compared.size(), 2u) << outcome.out;
    EXPECT_GE(outcome.json()["compiled"], 10);
    EXPECT_GT(outcome.json()["compile_seconds"], 0);
    for (const auto& work : compared) {
        EXPECT_GT(work["candidates"], 3) << work;
        EXPECT_GE(work["factor"], 1) << work;
        EXPECT_EQ(work["choice"], usual.at(work["slot"])["choice"]) << work;
        EXPECT_LE(work["best_seconds"], work["choice_seconds"]) << work;
    }
    const nlohmann::json record = nlohmann::json::parse(records().begin()->second);
    for (const auto& tuning : record["tunings"]) {
        EXPECT_LE(tuning["candidates"].size(), 3u) << "the record is that of the usual tuning";
    }
}

}  // namespace
}  // namespace smlora::tool

#endif
