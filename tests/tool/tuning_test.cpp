// tune, explain, export and import, as far as they go without a GPU.
#include "autotune/tuner.hpp"
#include "program.hpp"

#include "smlora_tune/archive.hpp"

#include "engine/engine_impl.hpp"
#include "gpu/device.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"
#include "tuning/choice.hpp"
#include "tuning/record_store.hpp"
#include "util/hash.hpp"

#include <smlora/error.hpp>

#include <archive.h>
#include <archive_entry.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <set>

namespace smlora::tool {
namespace {

/// On one family of products, as where there is no Hopper.
class TuningCommands : public ProgramTest {
 protected:
    TuningCommands() { setenv("SMLORA_INSTRUCTIONS", "mma", 1); }
    ~TuningCommands() override { unsetenv("SMLORA_INSTRUCTIONS"); }

    /// Puts a record into this test's cache by which the third best prediction for forward is the best, but for what
    /// `change` does to it; its name.
    std::string plant_record(const std::function<void(tuning::Tuning&)>& change = {},
                             const std::string& gpu = "NVIDIA H200") {
        EngineOptions options;
        options.backend = Backend::cpu;
        options.cache_root = cache();
        options.cache_layers.emplace();
        const Engine engine(options);
        const gpu::DeviceFacts facts = gpu::facts_of(gpu);
        Problem problem;
        problem.E = 8;
        problem.K = 256;
        problem.N = 512;
        problem.R = 16;
        problem.top_k = 2;
        const plan::Request request = plan::step_requests(problem, 64).at(0);
        const autotune::KnownWork work = autotune::tuner_of(engine).look_up(problem, request, facts).at(0);
        tuning::Tuning tuning;
        tuning.slot = work.slot;
        tuning.environment = work.environment;
        tuning.workload = {64, "uniform"};
        tuning.date = "2026-11-23T00:00:00Z";
        tuning.complete = true;
        for (const tuning::Candidate& candidate : tuning::shortlist(work.space, 24)) {
            tuning::Trial trial;
            trial.candidate = candidate;
            trial.verdict = tuning::Verdict::measured;
            const double factor = tuning.trials.size() == 2 ? 0.5 : 1;
            trial.samples = {1e-5 * factor, 1.01e-5 * factor, 0.99e-5 * factor};
            tuning.trials.push_back(std::move(trial));
        }
        tuning.trials[1].verdict = tuning::Verdict::refused;
        tuning.trials[1].why = "spills 8 bytes of registers";
        tuning.trials[1].samples.clear();
        tuning.choice = tuning.trials[2].candidate.configuration;
        if (change) change(tuning);
        tuning::RecordStore store(engine.impl().cache, engine.impl().log);
        EXPECT_TRUE(store.save(work.name, tuning));
        return tuning.trials[2].candidate.name;
    }

    [[nodiscard]] Outcome run_in(const std::string& folder, const std::vector<std::string>& arguments) const {
        return run_program(arguments, {{"SMLORA_CACHE_DIR", (cache().parent_path() / folder).string()},
                                       {"SMLORA_CACHE_LAYERS", ""},
                                       {"SMLORA_SHIPPED_CACHE", "0"}});
    }
    [[nodiscard]] std::string file(const std::string& name) const { return (cache().parent_path() / name).string(); }
};

const std::vector<std::string> explain{"explain", "--shape", "8,256,512,16,2", "--tokens", "64", "--arch", "sm_90a"};

std::vector<std::string> with(std::vector<std::string> arguments, const std::string& more) {
    arguments.push_back(more);
    return arguments;
}

nlohmann::json work_called(const nlohmann::json& document, const std::string& slot) {
    for (const auto& work : document["cases"][0]["works"]) {
        if (work["slot"] == slot) return work;
    }
    ADD_FAILURE() << "no work called " << slot;
    return {};
}

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

TEST_F(TuningCommands, APolicyThatIsNoneIsRefused) {
    for (const std::vector<std::string>& command : {explain, {"verify", "--device", "cpu", "--shape", "4,64,64,4,2"}}) {
        const Outcome outcome = run(command, {{"SMLORA_TUNING", "always"}});
        EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
        EXPECT_NE(outcome.err.find("SMLORA_TUNING: expected first-use, off or record-only, got \"always\""),
                  std::string::npos)
            << outcome.err;
    }
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
    for (const char* unclear : {"H300", "NVIDIA", " "}) {
        named[6] = unclear;
        const Outcome unknown = run(named);
        EXPECT_EQ(unknown.exit_code, 2) << unclear;
        EXPECT_NE(unknown.err.find("\"NVIDIA H100 80GB HBM3\", \"NVIDIA H200\""), std::string::npos) << unknown.err;
    }
    named[6] = h100;
    EXPECT_EQ(run(with(with(explain, "--gpu"), h100)).exit_code, 2) << "its architecture is no choice";
}

TEST_F(TuningCommands, ArchivesCarryKernelsAndRecordsToAnotherCache) {
    // As a measurement leaves it.
    plant_record([](tuning::Tuning& tuning) {
        tuning.date = "2026-11-23";
        tuning::condense(tuning.trials);
    });
    const bool compiles = run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>();
    ASSERT_EQ(run(explain).exit_code, 0);
    const nlohmann::json exported = run({"export", file("all.tar.gz"), "--json"}).json();
    EXPECT_EQ(exported["tunings"], 1);
    EXPECT_EQ(exported["kernels"].get<int>() > 0, compiles);
    // The same cache gives the same file.
    ASSERT_EQ(run({"export", file("again.tar.gz")}).exit_code, 0);
    const auto contents = [&](const std::string& name) {
        std::ifstream stream(file(name), std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(stream), {});
    };
    EXPECT_EQ(contents("all.tar.gz"), contents("again.tar.gz"));

    const nlohmann::json imported = run_in("other", {"import", file("all.tar.gz"), "--json"}).json();
    EXPECT_EQ(imported["kernels"], exported["kernels"]);
    EXPECT_EQ(imported["kept_kernels"], 0);
    EXPECT_EQ(imported["tunings"], 1);
    EXPECT_EQ(imported["kept"], 0);
    EXPECT_EQ(run_in("other", {"cache", "verify"}).exit_code, 0);
    EXPECT_EQ(run_in("other", {"cache", "stats", "--json"}).json()["records"], 1);
    EXPECT_EQ(run_in("other", with(explain, "--json")).out, run(with(explain, "--json")).out);
    // Again: what is here stays.
    const nlohmann::json again = run_in("other", {"import", file("all.tar.gz"), "--json"}).json();
    EXPECT_EQ(again["kernels"], 0);
    EXPECT_EQ(again["kept_kernels"], exported["kernels"]);
    EXPECT_EQ(again["tunings"], 0);
    EXPECT_EQ(again["kept"], 1);
    EXPECT_EQ(run_in("other", {"import", file("all.tar.gz")}).out, "0 kernels and 0 tunings imported, " +
                                                                       exported["kernels"].dump() +
                                                                       " kernels and 1 tunings were here already\n");
    // One kind only.
    EXPECT_EQ(run_in("third", {"import", file("all.tar.gz"), "--only", "records", "--json"}).json()["kernels"], 0);
    EXPECT_EQ(run({"export", file("k.tar.gz"), "--only", "kernels", "--json"}).json()["tunings"], 0);
}

TEST_F(TuningCommands, ExportTakesTheUpperTuningUnlessOnlyALowerOneIsComplete) {
    const std::string whole = "2026-11-23T00:00:00Z";
    const std::string part = "2026-11-24T00:00:00Z";
    const std::string further = "2026-11-25T00:00:00Z";
    int made = 0;
    for (const auto& [dates, exported] :
         std::vector<std::pair<std::vector<std::string>, std::string>>{{{whole, part}, whole},
                                                                       {{part, whole}, whole},
                                                                       {{part, further}, further},
                                                                       {{whole, part, further}, whole}}) {
        std::string layers;
        for (const std::string& date : dates) {
            plant_record([&](tuning::Tuning& tuning) {
                tuning.date = date;
                tuning.complete = date == whole;
            });
            const std::string layer = file("layer" + std::to_string(made++));
            std::filesystem::rename(cache(), layer);
            layers.insert(0, layer + ":");  // above those before
        }
        layers.pop_back();
        ASSERT_EQ(run({"export", file("all.tar.gz")}, {{"SMLORA_CACHE_LAYERS", layers}}).exit_code, 0);
        const std::vector<ArchiveMember> members = read_archive(file("all.tar.gz"));
        ASSERT_EQ(members.size(), 1u) << layers;
        // What is complete is in a bundle, and what is not in a record.
        EXPECT_EQ(members[0].path.ends_with(".jsonl"), exported == whole) << members[0].path;
        cache::RecordText stored;
        stored.folder = "NVIDIA_H200";
        if (exported != whole) stored.key = members[0].path.substr(std::string("tuning/NVIDIA_H200/").size(), 32);
        stored.text = members[0].bytes;
        std::string why;
        const auto records = tuning::records_in(stored, why);
        ASSERT_TRUE(records.has_value()) << why;
        ASSERT_EQ(records->size(), 1u);
        ASSERT_EQ(records->front().tunings.size(), 1u) << layers;
        EXPECT_EQ(records->front().tunings[0].date.substr(0, 10), exported.substr(0, 10)) << layers;
    }
}

TEST_F(TuningCommands, RecordsAreClearedWhenTheyAreNamed) {
    plant_record();
    EXPECT_EQ(run({"cache", "clear"}).out, "0 kernels removed, 1 tuning records left\n");
    EXPECT_EQ(run({"cache", "clear", "nothing"}).exit_code, 2);
    EXPECT_EQ(run({"cache", "clear", "records"}).out, "0 kernels left, 1 tuning records removed\n");
    EXPECT_EQ(run({"cache", "stats", "--json"}).json()["records"], 0);
    plant_record();
    const nlohmann::json all = run({"cache", "clear", "all", "--json"}).json();
    EXPECT_EQ(all["removed_records"], 1);
    EXPECT_EQ(all["records_left"], 0);
}

TEST_F(TuningCommands, AnEmptyCacheMakesAnArchiveWithNothing) {
    EXPECT_EQ(run({"export", file("none.tar.gz")}).exit_code, 0);
    EXPECT_EQ(run_in("other", {"import", file("none.tar.gz")}).out,
              "0 kernels and 0 tunings imported, 0 kernels and 0 tunings were here already\n");
}

TEST_F(TuningCommands, JsonTellsOfAFileWhoseNameIsNotUtf8) {
    const std::string name = file("\xff.tar.gz");
    const Outcome outcome = run({"export", name, "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_TRUE(std::filesystem::exists(name));
    EXPECT_EQ(outcome.json()["file"], file("\ufffd.tar.gz"));
}

TEST_F(TuningCommands, ExportSaysWhichKernelsAndRecordsItLeavesOut) {
    plant_record();
    const std::string kernel = file("cache") + "/v1/kernels/ab/ab" + std::string(30, '0');
    const std::string record = file("cache") + "/v1/tuning/NVIDIA_H200/" + std::string(32, 'b') + ".json";
    std::filesystem::create_directories(std::filesystem::path(kernel).parent_path());
    for (const std::string& bad : {kernel, record}) std::ofstream(bad) << "cubin";
    const Outcome outcome = run({"export", file("rest.tar.gz"), "--json"});
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.json()["kernels"], 0);
    EXPECT_EQ(outcome.json()["tunings"], 1);
    for (const std::string& bad : {kernel, record}) {
        EXPECT_NE(outcome.err.find("warning: " + bad + " is left out: "), std::string::npos) << outcome.err;
    }
    EXPECT_EQ(run({"export", file("records.tar.gz"), "--only", "records"}).err.find(kernel), std::string::npos);
}

TEST_F(TuningCommands, ABundleServesAsALayer) {
    const std::string winner = plant_record();
    const std::string layer = file("layer");
    std::filesystem::create_directories(layer + "/v1/tuning");
    const std::string bundle = layer + "/v1/tuning/NVIDIA_H200.jsonl";
    const Outcome outcome = run({"export", "--bundle", bundle});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out.find("1 tunings of NVIDIA H200 in " + bundle + ", "), 0u) << outcome.out;
    const std::map<std::string, std::string> with_layer{{"SMLORA_CACHE_LAYERS", layer}};
    std::filesystem::rename(cache(), file("away"));

    EXPECT_EQ(work_called(run(with(explain, "--json"), with_layer).json(), "forward")["used"], winner);
    const nlohmann::json stats = run({"cache", "stats", "--json"}, with_layer).json();
    EXPECT_EQ(stats["records"], 0);
    ASSERT_EQ(stats["bundles"].size(), 1u);
    EXPECT_EQ(stats["bundles"][0]["gpu"], "NVIDIA H200");
    EXPECT_EQ(stats["bundles"][0]["tunings"], 1);
    EXPECT_NE(run({"cache", "stats"}, with_layer).out.find("1 tunings of NVIDIA H200, " + bundle), std::string::npos);
    EXPECT_EQ(run({"cache", "verify"}, with_layer).exit_code, 0);
    EXPECT_EQ(run({"cache", "clear", "all"}, with_layer).exit_code, 0);

    // The same again, whatever it is made of.
    ASSERT_EQ(run({"export", "--bundle", file("again.jsonl")}, with_layer).exit_code, 0);
    const auto contents = [](const std::string& name) {
        std::ifstream stream(name, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(stream), {});
    };
    const std::string sound = contents(bundle);
    EXPECT_EQ(contents(file("again.jsonl")), sound);

    std::ofstream(bundle) << sound.substr(0, sound.size() - 5);
    const Outcome damaged = run({"cache", "verify"}, with_layer);
    EXPECT_EQ(damaged.exit_code, 1);
    EXPECT_NE(damaged.out.find(bundle + ": line "), std::string::npos) << damaged.out;
    EXPECT_NE(run(explain, with_layer).err.find(bundle + " is not used: line "), std::string::npos);
    std::ofstream(bundle) << sound;
    std::filesystem::permissions(bundle, std::filesystem::perms::group_write, std::filesystem::perm_options::add);
    EXPECT_NE(run(explain, with_layer).err.find("permissions"), std::string::npos);
}

TEST_F(TuningCommands, ABundleIsOfOneGpuAndOfThePresentKernels) {
    const auto refused = [&](const std::vector<std::string>& arguments, const std::string& part) {
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.exit_code, 2) << part;
        EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
    };
    refused({"export"}, "either the FILE of an archive or --bundle FILE");
    refused({"export", file("a"), "--bundle", file("b")}, "either the FILE of an archive or --bundle FILE");
    refused({"export", file("a"), "--gpu", "NVIDIA H200"}, "--gpu: expected only with --bundle");
    refused({"export", "--bundle", file("b")}, "--gpu: expected one of the GPUs that have complete tunings: none");
    plant_record();
    plant_record({}, "NVIDIA H100 80GB HBM3");
    refused({"export", "--bundle", file("b")}, "NVIDIA H100 80GB HBM3, NVIDIA H200");
    refused({"export", "--bundle", file("b"), "--gpu", "H200"}, "got H200");
    EXPECT_FALSE(std::filesystem::exists(file("b")));
    const auto bundle = [&] { return run({"export", "--bundle", file("b"), "--gpu", "NVIDIA H200", "--json"}).json(); };
    EXPECT_EQ(bundle()["tunings"], 1);
    EXPECT_EQ(bundle()["left_out"], 0);
    plant_record([](tuning::Tuning& tuning) {
        tuning.slot = "dx";
        tuning.environment.templates = "00";
    });
    EXPECT_EQ(bundle()["tunings"], 1);
    EXPECT_EQ(bundle()["left_out"], 1);
    // A device would be renamed over.
    ASSERT_EQ(::mkfifo(file("pipe").c_str(), 0600), 0);
    EXPECT_EQ(run({"export", "--bundle", file("pipe"), "--gpu", "NVIDIA H200"}).exit_code, 1);
    EXPECT_TRUE(std::filesystem::is_fifo(file("pipe")));
}

TEST_F(TuningCommands, TuningsAreCarriedOverWhereMachineCodeIsTheSame) {
    if (!run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>()) GTEST_SKIP() << "needs NVRTC";
    plant_record([](tuning::Tuning& tuning) { tuning.trials.resize(3); });
    const std::string bundle = file("layer") + "/v1/tuning/NVIDIA_H200.jsonl";
    std::filesystem::create_directories(std::filesystem::path(bundle).parent_path());
    const auto contents = [](const std::string& name) {
        std::ifstream stream(name, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(stream), {});
    };
    /// A folder of templates with something else in one of them.
    const auto templates = [&](const std::string& name, const std::string& from, const std::string& to) {
        std::filesystem::copy(SMLORA_KERNEL_TEMPLATES, file(name), std::filesystem::copy_options::recursive);
        const std::string changed = file(name) + "/grouped_product_mma.cuh";
        std::string text = contents(changed);
        EXPECT_NE(text.find(from), std::string::npos) << from;
        text.replace(text.find(from), from.size(), to);
        std::ofstream(changed) << text;
        return std::map<std::string, std::string>{{"SMLORA_TEMPLATE_DIR", file(name)},
                                                  {"SMLORA_CACHE_LAYERS", file("layer")}};
    };
    const auto source = [&](const std::map<std::string, std::string>& environment) {
        return work_called(run(with(explain, "--json"), environment).json(), "forward")["source"].get<std::string>();
    };
    ASSERT_EQ(run({"export", "--bundle", bundle}).exit_code, 0);
    const std::string before = contents(bundle);
    ASSERT_EQ(run({"carry", bundle, "--codes", file("codes")}).exit_code, 0);

    const auto renamed = templates("renamed", "(tile.group, args.scale)", "(tile.group, args.scale * 1.0F)");
    EXPECT_NE(source(renamed).find("nothing is recorded"), std::string::npos) << source(renamed);
    const Outcome carried = run({"carry", bundle, "--before", file("codes")}, renamed);
    EXPECT_EQ(carried.exit_code, 0) << carried.out << carried.err;
    EXPECT_EQ(carried.out, "1 tunings carried over, 0 left as they were\n");
    EXPECT_NE(contents(bundle), before) << "the digest is another one";
    EXPECT_EQ(source(renamed).find("recorded"), 0u) << source(renamed);

    std::ofstream(bundle) << before;
    const auto other = templates("other", "(tile.group, args.scale)", "(tile.group, args.scale + 1)");
    const Outcome refused = run({"carry", bundle, "--before", file("codes")}, other);
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_NE(refused.out.find("forward: "), std::string::npos) << refused.out;
    EXPECT_NE(refused.out.find(" differs\n0 tunings carried over, 1 left as they were\n"), std::string::npos);
    EXPECT_EQ(contents(bundle), before);
    EXPECT_EQ(run({"carry", bundle, "--before", file("codes"), "--drop"}, other).exit_code, 1);
    EXPECT_EQ(contents(bundle).find("\"problem\""), std::string::npos);
}

/// For its lifetime no file of this process and of those that it starts grows beyond `bytes`.
class FullDisk {
 public:
    explicit FullDisk(::rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
        ::getrlimit(RLIMIT_FSIZE, &before_);
        const ::rlimit limit{bytes, before_.rlim_max};
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    ~FullDisk() {
        ::setrlimit(RLIMIT_FSIZE, &before_);
        static_cast<void>(std::signal(SIGXFSZ, handler_));
    }
    FullDisk(const FullDisk&) = delete;
    FullDisk& operator=(const FullDisk&) = delete;

 private:
    void (*handler_)(int);
    ::rlimit before_{};
};

TEST_F(TuningCommands, ExportThatCannotWriteLeavesNothingBehind) {
    plant_record();
    const std::filesystem::path folder = file("folder");
    std::filesystem::create_directories(folder / "target");
    ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
    const auto expect_refused = [&](const std::string& target, const std::string& part) {
        const Outcome outcome = run({"export", target});
        EXPECT_EQ(outcome.exit_code, 1) << target;
        EXPECT_NE(outcome.err.find("archive " + target + ": " + part), std::string::npos) << outcome.err;
    };
    for (const char* name : {"target", "pipe"}) {
        expect_refused((folder / name).string(), "expected a new file or a plain one, but it is a folder or a device");
    }
    {
        const FullDisk disk(1024);
        expect_refused((folder / "full.tar.gz").string(), "Write error: File too large");
    }
    std::set<std::string> left;
    for (const auto& item : std::filesystem::recursive_directory_iterator(folder)) {
        left.insert(item.path().filename().string());
    }
    EXPECT_EQ(left, (std::set<std::string>{"pipe", "target"}));
    EXPECT_TRUE(std::filesystem::is_fifo(folder / "pipe"));
}

TEST_F(TuningCommands, ImportIntoACacheThatTakesNothingFails) {
    plant_record();
    ASSERT_EQ(run({"export", file("sound.tar.gz")}).exit_code, 0);
    const Outcome outcome = run({"import", file("sound.tar.gz"), "--cache-dir", "/proc/smlora"});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err, "smlora-tune: cache /proc/smlora: cannot be written: No such file or directory\n");
    // What is there in a layer below needs no writing.
    const Outcome there = run_program({"import", file("sound.tar.gz"), "--cache-dir", "/proc/smlora"},
                                      {{"SMLORA_CACHE_LAYERS", cache().string()}, {"SMLORA_SHIPPED_CACHE", "0"}});
    EXPECT_EQ(there.exit_code, 0) << there.err;
    EXPECT_EQ(there.out, "0 kernels and 0 tunings imported, 0 kernels and 1 tunings were here already\n");
}

/// A gzipped tar of whatever is wanted, well-formed or not.
class CraftedArchive {
 public:
    explicit CraftedArchive(const std::string& path) : a_(::archive_write_new()) {
        ::archive_write_add_filter_gzip(a_);
        ::archive_write_set_format_ustar(a_);
        ::archive_write_open_filename(a_, path.c_str());
    }
    ~CraftedArchive() { ::archive_write_free(a_); }
    CraftedArchive(const CraftedArchive&) = delete;
    CraftedArchive& operator=(const CraftedArchive&) = delete;

    void add(const std::string& path, const std::string& bytes, unsigned type = AE_IFREG) {
        ::archive_entry* entry = ::archive_entry_new();
        ::archive_entry_set_pathname(entry, path.c_str());
        ::archive_entry_set_filetype(entry, type);
        ::archive_entry_set_perm(entry, 0600);
        if (type == AE_IFLNK) ::archive_entry_set_symlink(entry, "/etc/passwd");
        ::archive_entry_set_size(entry, type == AE_IFREG ? static_cast<la_int64_t>(bytes.size()) : 0);
        ::archive_write_header(a_, entry);
        if (type == AE_IFREG) ::archive_write_data(a_, bytes.data(), bytes.size());
        ::archive_entry_free(entry);
    }
    void add_manifest(const std::vector<ArchiveMember>& members) {
        nlohmann::json manifest{{"format", 1}, {"files", nlohmann::json::array()}};
        for (const ArchiveMember& member : members) {
            manifest["files"].push_back(
                {{"path", member.path}, {"bytes", member.bytes.size()}, {"xxh128", util::xxh128_hex(member.bytes)}});
        }
        add("manifest.json", manifest.dump());
    }

 private:
    ::archive* a_;
};

TEST_F(TuningCommands, ImportRefusesWhatIsNotWhatItSays) {
    plant_record();
    ASSERT_EQ(run({"export", file("sound.tar.gz"), "--only", "records"}).exit_code, 0);
    const std::vector<ArchiveMember> sound = read_archive(file("sound.tar.gz"));
    ASSERT_EQ(sound.size(), 1u);
    const ArchiveMember record = sound[0];

    const auto expect_refused = [&](const std::string& part, const std::function<void(CraftedArchive&)>& make) {
        {
            CraftedArchive crafted(file("bad.tar.gz"));
            make(crafted);
        }
        const Outcome outcome = run_in("target", {"import", file("bad.tar.gz")});
        EXPECT_EQ(outcome.exit_code, 1) << part;
        EXPECT_TRUE(outcome.err.starts_with("smlora-tune: archive " + file("bad.tar.gz") + ": ")) << outcome.err;
        EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
        EXPECT_FALSE(std::filesystem::exists(file("target") + "/v1")) << "nothing of it is stored: " << part;
    };
    // Paths that lead elsewhere.
    for (const std::string& path : std::vector<std::string>{
             "../../evil", "/etc/evil", "kernels/../../../evil", "tuning/../evil/" + std::string(32, 'a') + ".json",
             "tuning/..", "tuning/../evil.jsonl", "tuning/..jsonl", "tuning/.jsonl",
             "kernels/ab/" + std::string(32, 'c'), "tuning/GPU/short.json", "evil"}) {
        expect_refused("member \"" + path + "\": expected kernels/ab/KEY, tuning/GPU.jsonl or",
                       [&](CraftedArchive& crafted) {
                           crafted.add_manifest({{path, "x"}});
                           crafted.add(path, "x");
                       });
    }
    expect_refused("no plain file", [&](CraftedArchive& crafted) {
        crafted.add_manifest({record});
        crafted.add(record.path, "", AE_IFLNK);
    });
    // Bytes that are not those of the manifest.
    expect_refused("not what its manifest says", [&](CraftedArchive& crafted) {
        crafted.add_manifest({record});
        std::string changed = record.bytes;
        changed[changed.size() / 2] ^= 1;
        crafted.add(record.path, changed);
    });
    expect_refused("is not in its manifest, or twice", [&](CraftedArchive& crafted) {
        crafted.add_manifest({record});
        crafted.add(record.path, record.bytes);
        crafted.add(record.path, record.bytes);
    });
    expect_refused("is missing", [&](CraftedArchive& crafted) { crafted.add_manifest({record}); });
    expect_refused("not with its manifest", [&](CraftedArchive& crafted) { crafted.add(record.path, record.bytes); });
    for (const auto& [manifest, part] : std::vector<std::pair<std::string, std::string>>{
             {"{}", "\"format\": expected 1, got null"},
             {"[1]", "expected a JSON object"},
             {"manifest", "expected a JSON object"},
             {R"({"format": "x", "files": []})", "\"format\": expected 1, got \"x\""},
             {R"({"format": 2, "files": []})", "\"format\": expected 1, got 2"},
             {R"({"format": 1, "files": {}})", "\"files\": expected an array, got {}"},
             {R"({"format": 1, "files": [3]})", "\"files\": expected {\"path\", \"bytes\", \"xxh128\"}, got 3"},
             {R"({"format": 1, "files": [{"path": 3}]})",
              "\"files\": expected {\"path\", \"bytes\", \"xxh128\"}, got {\"path\":3}"},
         }) {
        expect_refused("its manifest is none of an archive of this format: manifest.json: " + part,
                       [&](CraftedArchive& crafted) { crafted.add("manifest.json", manifest); });
    }
    expect_refused("is not what its manifest says", [&](CraftedArchive& crafted) {
        crafted.add("manifest.json", R"({"format": 1, "files": [{"path": ")" + record.path + R"(", "bytes": "x"}]})");
        crafted.add(record.path, record.bytes);
    });
    // Content that is none, with a manifest that agrees; a sound member before it is not stored either.
    const std::string kernel_path = "kernels/ab/ab" + std::string(30, '0');
    expect_refused("only 5 bytes", [&](CraftedArchive& crafted) {
        crafted.add_manifest({record, {kernel_path, "cubin"}});
        crafted.add(record.path, record.bytes);
        crafted.add(kernel_path, "cubin");
    });
    const std::string other_record = "tuning/NVIDIA_H200/" + std::string(32, 'b') + ".json";
    const std::string foreign = tuning::record_text({{"NVIDIA H200", "E8", 6}, {}});
    expect_refused("the record of another problem", [&](CraftedArchive& crafted) {
        crafted.add_manifest({{other_record, foreign}});
        crafted.add(other_record, foreign);
    });
    expect_refused("the bundle of another GPU: NVIDIA H200", [&](CraftedArchive& crafted) {
        crafted.add_manifest({{"tuning/NVIDIA_H100.jsonl", record.bytes}});
        crafted.add("tuning/NVIDIA_H100.jsonl", record.bytes);
    });
    expect_refused("line 1: ", [&](CraftedArchive& crafted) {
        crafted.add_manifest({{record.path, foreign}});
        crafted.add(record.path, foreign);
    });
    // No archive at all, and one that was cut short.
    for (const std::string text : {"not an archive", ""}) {
        const Outcome outcome = run_in("target", {"import", write("text.tar.gz", text)});
        EXPECT_EQ(outcome.exit_code, 1);
        EXPECT_EQ(outcome.err, "smlora-tune: archive " + file("text.tar.gz") +
                                   ": it is no archive of smlora, which is a gzipped tar that begins with "
                                   "manifest.json\n");
    }
    std::filesystem::resize_file(file("sound.tar.gz"), std::filesystem::file_size(file("sound.tar.gz")) / 2);
    EXPECT_EQ(run_in("target", {"import", file("sound.tar.gz")}).exit_code, 1);
    EXPECT_EQ(run_in("target", {"import", file("nowhere.tar.gz")}).exit_code, 1);
}

}  // namespace
}  // namespace smlora::tool
