// Bundles: export --bundle, as a layer, and carry.
#include "tuning/bundle.hpp"
#include "tuning_commands.hpp"

#include <smlora/problem.hpp>

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace smlora::tool {
namespace {

TEST_F(TuningCommands, ABundleServesAsALayer) {
    const std::string winner = plant_record();
    const std::string layer = file("layer");
    std::filesystem::create_directories(layer + "/v1/tuning");
    const std::string bundle = layer + "/v1/tuning/NVIDIA_H200.jsonl";
    const Outcome outcome = run({"export", "--bundle", bundle});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out.find("1 tuning of NVIDIA H200 in " + bundle + ", "), 0u) << outcome.out;
    const std::map<std::string, std::string> with_layer{{"SMLORA_CACHE_LAYERS", layer}};
    std::filesystem::rename(cache(), file("away"));

    EXPECT_EQ(work_called(run(with(explain, "--json"), with_layer).json(), "forward")["used"], winner);
    const nlohmann::json stats = run({"cache", "stats", "--json"}, with_layer).json();
    EXPECT_EQ(stats["records"], 0);
    ASSERT_EQ(stats["bundles"].size(), 1u);
    EXPECT_EQ(stats["bundles"][0]["gpu"], "NVIDIA H200");
    EXPECT_EQ(stats["bundles"][0]["tunings"], 1);
    EXPECT_NE(run({"cache", "stats"}, with_layer).out.find("1 tuning of NVIDIA H200, " + bundle), std::string::npos);
    EXPECT_EQ(run({"cache", "verify"}, with_layer).exit_code, 0);
    EXPECT_EQ(run({"cache", "clear", "all", "--yes"}, with_layer).exit_code, 0);

    // The same again, whatever it is made of.
    ASSERT_EQ(run({"export", "--bundle", file("again.jsonl")}, with_layer).exit_code, 0);
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

TEST_F(TuningCommands, AsManyTuningsAreCarriedOverAsABundleHas) {
    if (!run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>()) GTEST_SKIP() << "needs NVRTC";
    plant_record();
    ASSERT_EQ(run({"export", "--bundle", file("b")}).exit_code, 0);
    std::string why;
    const auto bundle = tuning::Bundle::parse(contents(file("b")), why);
    ASSERT_TRUE(bundle.has_value());
    std::vector<tuning::Record> records;
    for (int N = 8; N <= 8 * 300; N += 8) {
        tuning::Record& record = records.emplace_back(bundle->records().at(0));
        record.name.problem = to_string(Problem{.E = 8, .K = 256, .N = N, .R = 16, .top_k = 2});
    }
    std::ofstream(file("b"), std::ios::trunc) << tuning::bundle_text(bundle->gpu(), records);
    EXPECT_EQ(run({"carry", file("b"), "--codes", file("codes"), "--other", SMLORA_KERNEL_TEMPLATES}).exit_code, 0);
    EXPECT_EQ(run({"carry", file("b"), "--before", file("codes"), "--other", SMLORA_KERNEL_TEMPLATES}).out,
              "300 tunings carried over, 0 left as they were\n");
}

TEST_F(TuningCommands, TuningsAreCarriedOverWhereMachineCodeIsTheSame) {
    if (!run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>()) GTEST_SKIP() << "needs NVRTC";
    plant_record([](tuning::Tuning& tuning) { tuning.trials.resize(3); });
    const std::string bundle = file("layer") + "/v1/tuning/NVIDIA_H200.jsonl";
    std::filesystem::create_directories(std::filesystem::path(bundle).parent_path());
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
    const std::string templates_of_now = SMLORA_KERNEL_TEMPLATES;
    const Outcome same = run({"carry", bundle, "--codes", file("codes"), "--other", templates_of_now});
    EXPECT_NE(same.err.find("0 kernels to compile"), std::string::npos) << same.err;
    EXPECT_EQ(run({"carry", bundle, "--before", file("codes"), "--other", templates_of_now}).out,
              "1 tuning carried over, 0 left as they were\n");
    EXPECT_EQ(contents(bundle), before);
    ASSERT_EQ(run({"carry", bundle, "--codes", file("codes")}).exit_code, 0);

    const auto renamed = templates("renamed", "(tile.group, args.scale)", "(tile.group, args.scale * 1.0F)");
    EXPECT_NE(source(renamed).find("nothing is recorded"), std::string::npos) << source(renamed);
    const Outcome carried = run({"carry", bundle, "--before", file("codes")}, renamed);
    EXPECT_EQ(carried.exit_code, 0) << carried.out << carried.err;
    EXPECT_EQ(carried.out, "1 tuning carried over, 0 left as they were\n");
    EXPECT_NE(contents(bundle), before) << "the digest is another one";
    EXPECT_EQ(source(renamed).find("recorded"), 0u) << source(renamed);

    for (const auto& [large, bytes] : {std::pair{bundle, "16777216"}, std::pair{file("codes"), "67108864"}}) {
        const std::string kept = contents(large);
        std::filesystem::resize_file(large, std::uintmax_t{1} << 33);
        const Outcome beyond = run({"carry", bundle, "--before", file("codes")}, renamed);
        EXPECT_EQ(beyond.exit_code, 1);
        EXPECT_NE(beyond.err.find(large + ": expected at most " + bytes + " bytes, got 8589934592"), std::string::npos)
            << beyond.err;
        std::ofstream(large, std::ios::trunc) << kept;
    }

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

}  // namespace
}  // namespace smlora::tool
