// explain, with and without records.
#include "tuning_commands.hpp"

#include <algorithm>

namespace smlora::tool {
namespace {

TEST_F(TuningCommands, ExplainPredictsWithoutARecord) {
    const nlohmann::json document = run(with(explain, "--json")).json();
    EXPECT_EQ(document["gpu"], "NVIDIA H200");
    for (const char* slot : {"forward", "xa", "dx", "yb", "gradients"}) {
        const nlohmann::json work = work_called(document, slot);
        EXPECT_NE(work["source"].get<std::string>().find("nothing is recorded"), std::string::npos);
        EXPECT_GT(work["floor_seconds"], 0);
        int used = 0;
        double best = 1;
        for (const auto& candidate : work["candidates"]) {
            EXPECT_FALSE(candidate["why"].get<std::string>().empty()) << candidate;
            EXPECT_FALSE(candidate.contains("measured_seconds"));
            if (candidate["status"] == "refused") continue;
            best = std::min(best, candidate["predicted_seconds"].get<double>());
            used += candidate["status"] == "used" ? 1 : 0;
        }
        EXPECT_EQ(used, 1);
        EXPECT_EQ(work["candidates"][0]["status"], "used") << "the one that is used leads";
        EXPECT_EQ(work["candidates"][0]["predicted_seconds"], best);
    }
    const std::string text = run(explain).out;
    for (const char* part :
         {"forward  the heuristic choice", "of floor", "predicted to be the fastest", "SMLORA_INSTRUCTIONS is mma"}) {
        EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
    }
}

TEST_F(TuningCommands, ExplainNeedsNoKernelsWhereNothingMayBeCompiled) {
    const std::map<std::string, std::string> off{{"SMLORA_JIT", "off"}};
    const Outcome text = run(explain, off);
    EXPECT_EQ(text.exit_code, 0) << text.err;
    EXPECT_NE(text.out.find("is in no layer of the cache, and SMLORA_JIT=off lets nothing be compiled"),
              std::string::npos)
        << text.out;
    const nlohmann::json work = work_called(run(with(explain, "--json"), off).json(), "forward");
    EXPECT_NE(work["kernels_error"].get<std::string>().find("SMLORA_JIT=off"), std::string::npos) << work;
    EXPECT_TRUE(work["kernels"].empty());
    EXPECT_FALSE(work["candidates"].empty());
}

TEST_F(TuningCommands, ExplainSaysHowQuantisedWeightsAreUnpackedAndThatProductsAreThoseOfPlainOnes) {
    const std::string winner = plant_record();
    std::vector<std::string> quantised = explain;
    quantised.insert(quantised.end(), {"--weights", "mxfp4", "--weight-layout", "ekn"});
    const nlohmann::json document = run(with(quantised, "--json")).json();
    const auto& done = document["cases"][0];
    EXPECT_EQ(done["weights"], "mxfp4 block 32");
    EXPECT_EQ(done["unpack"]["slice_experts"], 8);
    EXPECT_EQ(done["unpack"]["slices"], 1);
    EXPECT_EQ(done["unpack"]["slice_bytes"], 8 * 256 * 512 * 2);
    EXPECT_EQ(done["unpack"]["packed_bytes"], 8 * 256 * 512 * 17 / 32);
    EXPECT_GT(done["unpack"]["floor_seconds"], 0);
    EXPECT_EQ(done["unpack"]["other_scales"], nlohmann::json({"uint8"}));
    const nlohmann::json plainly = run(with(explain, "--json")).json();
    for (const char* slot : {"forward", "xa", "dx", "yb", "gradients"}) {
        EXPECT_EQ(work_called(document, slot)["used"], work_called(plainly, slot)["used"]) << slot;
        EXPECT_EQ(work_called(document, slot)["record"], work_called(plainly, slot)["record"]) << slot;
        EXPECT_EQ(work_called(document, slot)["floor_seconds"], work_called(plainly, slot)["floor_seconds"]) << slot;
    }
    EXPECT_EQ(work_called(document, "forward")["used"], winner);
    EXPECT_FALSE(plainly["cases"][0].contains("unpack"));

    const std::string text = run(quantised).out;
    EXPECT_NE(
        text.find(
            "unpack  weights: mxfp4 block 32, 544.0 KiB\n"
            "  the scales are e8m0 or uint8: prewarm compiles for each\n  8 experts at once, unpacked to 2.0 MiB"),
        std::string::npos)
        << text;
    EXPECT_NE(text.find("their tiles are those chosen for plain weights"), std::string::npos) << text;
    const std::string sliced = run(quantised, {{"SMLORA_UNPACK_LIMIT", "800K"}}).out;
    EXPECT_NE(sliced.find("3 slices of 3 experts, unpacked to 768.0 KiB"), std::string::npos) << sliced;
    const std::string single = run(quantised, {{"SMLORA_UNPACK_LIMIT", "1"}}).out;
    EXPECT_NE(single.find("8 slices of 1 expert, unpacked to 256.0 KiB"), std::string::npos) << single;
}

TEST_F(TuningCommands, ExplainSaysWhichProductsDecodeTheWeights) {
    const nlohmann::json document = run({"explain", "--arch", "sm_90a", "--shape", "128,2048,1536,0,8", "--tokens",
                                         "512", "--weights", "nf4:arranged", "--json"})
                                        .json();
    for (const std::string slot : {"forward", "dx"}) {
        const nlohmann::json work = work_called(document, slot + " decoding");
        EXPECT_TRUE(work["used"].get<std::string>().starts_with("mma_packed_")) << work;
        const auto& candidates = work["candidates"];
        EXPECT_TRUE(std::any_of(candidates.begin(), candidates.end(), [](const auto& one) {
            return one["name"] == "unpack" && one["status"] != "refused";
        })) << work;
        EXPECT_EQ(work["kernels"].size(), 1U) << work;
        const auto& works = document["cases"][0]["works"];
        EXPECT_TRUE(std::none_of(works.begin(), works.end(), [&](const auto& one) { return one["slot"] == slot; }))
            << "there is no product of plain weights: " << works;
    }
}

TEST_F(TuningCommands, ExplainSaysWhyWhatIsRecordedDoesNotHold) {
    const auto nvrtc = run({"info", "--json"}).json()["nvrtc"];
    if (!nvrtc["found"].get<bool>()) GTEST_SKIP() << "no NVRTC, whose version is compared";
    plant_record([](tuning::Tuning& tuning) { tuning.environment.compiler = "1.2.3"; });
    const std::string source = work_called(run(with(explain, "--json")).json(), "forward")["source"];
    EXPECT_EQ(
        source.find("the heuristic choice: nothing is recorded that holds here (compiler: recorded with 1.2.3, here"),
        0u)
        << source;
}

TEST_F(TuningCommands, ExplainShowsWhatWasMeasuredAndWhy) {
    const std::string winner = plant_record();
    const nlohmann::json work = work_called(run(with(explain, "--json")).json(), "forward");
    EXPECT_EQ(work["used"], winner);
    EXPECT_NE(work["source"].get<std::string>().find("recorded on 2026-11-23"), std::string::npos) << work["source"];
    EXPECT_EQ(work["candidates"][0]["name"], winner);
    EXPECT_NEAR(work["candidates"][0]["measured_seconds"], 0.5e-5, 1e-8);
    EXPECT_NE(work["candidates"][0]["why"].get<std::string>().find("faster than the heuristic choice"),
              std::string::npos);
    const auto refused = std::find_if(work["candidates"].begin(), work["candidates"].end(),
                                      [](const auto& c) { return c["why"] == "spills 8 bytes of registers"; });
    ASSERT_NE(refused, work["candidates"].end());
    EXPECT_EQ((*refused)["status"], "refused");
    EXPECT_NE(run(explain).out.find("2.000 times the time of the choice"), std::string::npos);
    // For another number of tokens it is the nearest.
    std::vector<std::string> elsewhere = explain;
    elsewhere[4] = "4096";
    const nlohmann::json near = work_called(run(with(elsewhere, "--json")).json(), "forward");
    EXPECT_EQ(near["used"], winner);
    EXPECT_NE(near["source"].get<std::string>().find("recorded for about 64 tokens"), std::string::npos);
    // With other number types it is the same, and what was measured is not said to be of this problem.
    std::vector<std::string> types = explain;
    types.insert(types.end(), {"--adapter-dtype", "fp32", "--index-dtype", "int64"});
    const nlohmann::json served = work_called(run(with(types, "--json")).json(), "forward");
    EXPECT_EQ(served["used"], winner);
    EXPECT_EQ(
        served["source"],
        "recorded for about 64 tokens of E8 K256 N512 R16 k2 bf16 ekn token->scattered, whose records are used here");
    EXPECT_NE(served["record"], work["record"]);
    EXPECT_EQ(served["served_by"], work["record"]);
    EXPECT_EQ(work["served_by"], "");
    for (const auto& candidate : served["candidates"]) {
        EXPECT_FALSE(candidate.contains("measured_seconds"));
        EXPECT_FALSE(candidate["why"].get<std::string>().empty()) << candidate;
        if (candidate["status"] == "lost") {
            EXPECT_EQ(candidate["why"].get<std::string>().find("not measured here, predicted to take"), 0u);
        }
    }
    // Without records, it is the cost model's.
    const nlohmann::json off = work_called(run(with(explain, "--json"), {{"SMLORA_TUNING", "off"}}).json(), "forward");
    EXPECT_NE(off["source"].get<std::string>().find("the heuristic choice"), std::string::npos);
    EXPECT_NE(off["used"], winner);
    // The report of the kernel's resources comes from a compile.
    if (run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>()) {
        ASSERT_EQ(work["kernels"].size(), 1u);
        EXPECT_GT(work["kernels"][0]["registers"], 16);
        EXPECT_EQ(work["kernels"][0]["spill_bytes"], 0);
    }
}

TEST_F(TuningCommands, ExplainShowsTheGpuThatIsNamed) {
    const std::string h100 = "NVIDIA H100 80GB HBM3";
    const std::string winner = plant_record({}, h100);
    std::vector<std::string> named = explain;
    named[5] = "--gpu";
    named[6] = h100;
    const nlohmann::json document = run(with(named, "--json")).json();
    EXPECT_EQ(document["gpu"], h100);
    EXPECT_EQ(document["gpu_assumed"], true);
    EXPECT_EQ(document["arch"], "sm_90a");
    EXPECT_EQ(document["ceilings"]["gbs"], 3008);
    const nlohmann::json work = work_called(document, "forward");
    EXPECT_EQ(work["used"], winner);
    EXPECT_EQ(work["source"].get<std::string>().find("recorded on 2026-11-23"), 0u) << work["source"];
    EXPECT_EQ(run(named).out.find(h100 + " (sm_90a; assumed, no GPU found), ceilings 790 TFLOP/s and 3008 GB/s"), 0u);
    // Another GPU of its architecture has other records.
    const std::string other = work_called(run(with(explain, "--json")).json(), "forward")["source"];
    EXPECT_NE(other.find("nothing is recorded"), std::string::npos) << other;

    // A word of its name is enough where only one has it.
    for (const char* brief : {"H100", "h100", "nvidia 80GB h100"}) {
        named[6] = brief;
        EXPECT_EQ(run(with(named, "--json")).json()["gpu"], h100) << brief;
    }
    named[6] = "A100";
    EXPECT_EQ(run(with(named, "--json")).json()["gpu"], "NVIDIA A100-SXM4-80GB");
    for (const char* unclear : {"H300", "NVIDIA", " "}) {
        named[6] = unclear;
        const Outcome unknown = run(named);
        EXPECT_EQ(unknown.exit_code, 2) << unclear;
        EXPECT_NE(unknown.err.find("\"NVIDIA H100 80GB HBM3\", \"NVIDIA H200\""), std::string::npos) << unknown.err;
    }
    named[6] = h100;
    EXPECT_EQ(run(with(with(explain, "--gpu"), h100)).exit_code, 2) << "its architecture is no choice";
}

}  // namespace
}  // namespace smlora::tool
