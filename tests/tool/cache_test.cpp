// prewarm and cache together: what one writes the other shows.
#include "program.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace smlora::tool {
namespace {

using Cache = ProgramTest;

const std::vector<std::string> prewarming{"prewarm", "--shape", "4,64,32,4,2", "--tokens",
                                          "64",      "--arch",  "sm_90a",      "--json"};

TEST_F(Cache, OfANewUserIsEmpty) {
    EXPECT_EQ(run({"cache", "path"}).out, cache().string() + "\n");
    EXPECT_EQ(run({"cache", "path", "--json"}).json()["path"], cache().string());
    EXPECT_EQ(run({"cache", "path", "--cache-dir", "/tmp/elsewhere"}).out, "/tmp/elsewhere\n");
    const nlohmann::json stats = run({"cache", "stats", "--json"}).json();
    EXPECT_EQ(stats["entries"], 0);
    EXPECT_EQ(stats["limit_bytes"], std::uint64_t{2} << 30U);
    EXPECT_EQ(run({"cache", "list", "--json"}).json()["entries"].size(), 0U);
    const Outcome inspect = run({"cache", "inspect", "0123"});
    EXPECT_EQ(inspect.exit_code, 1);
    EXPECT_NE(inspect.err.find("0123"), std::string::npos) << inspect.err;
    EXPECT_EQ(run({"cache", "inspect", "zzzz"}).exit_code, 2);
    EXPECT_EQ(run({"cache", "clear", "--yes"}).out, cache().string() + ": 0 kernels removed, 0 tuning records left\n");
}

TEST_F(Cache, MayHaveNoLimit) {
    EXPECT_NE(run({"cache", "stats"}).out.find(" / 2.0 GiB (0.00%)\n"), std::string::npos);
    EXPECT_NE(run({"cache", "stats"}, {{"SMLORA_CACHE_LIMIT", "0"}}).out.find("0 B, no limit\n"), std::string::npos);
}

TEST_F(Cache, PrewarmingAFolderThatTakesNothingFails) {
    if (!run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>()) GTEST_SKIP() << "there is no NVRTC";
    const Outcome outcome = run({"prewarm", "--shape", "2,16,16,0,1", "--tokens", "8", "--arch", "sm_90a", "--json",
                                 "--cache-dir", "/proc/smlora"});
    EXPECT_EQ(outcome.exit_code, 1);
    const nlohmann::json report = outcome.json();
    EXPECT_EQ(report["not_stored"], report["kernels"]);
    EXPECT_EQ(report["warnings"].size(), 1U) << report["warnings"];
    EXPECT_NE(outcome.err.find("cache /proc/smlora: cannot be written"), std::string::npos) << outcome.err;
}

TEST_F(Cache, PrewarmingOpensItForThoseWhoAreToShareIt) {
    const std::vector<std::string> small{"prewarm", "--shape", "2,16,16,0,1", "--tokens", "8", "--arch", "sm_90a"};
    const auto sharing_with = [&](const std::string& readers) {
        std::vector<std::string> arguments = small;
        arguments.insert(arguments.end(), {"--share", readers});
        return run(arguments);
    };
    EXPECT_EQ(sharing_with("friends").exit_code, 2);
    if (!run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>()) GTEST_SKIP() << "there is no NVRTC";
    using std::filesystem::perms;
    const std::filesystem::path above = cache().parent_path();
    std::filesystem::permissions(above, perms::owner_all);
    const Outcome hidden = sharing_with("all");
    EXPECT_EQ(hidden.exit_code, 1);
    EXPECT_NE(hidden.err.find(above.string() + ": it keeps them out"), std::string::npos) << hidden.err;
    std::filesystem::permissions(above, static_cast<perms>(0755));
    const Outcome open = sharing_with("all");
    EXPECT_EQ(open.exit_code, 0) << open.err;
    EXPECT_EQ(std::filesystem::status(cache()).permissions(), static_cast<perms>(0755));
    // As a layer of somebody's, whose own folder is empty.
    const Outcome read = run({"cache", "verify", "--json", "--cache-dir", (above / "none").string()},
                             {{"SMLORA_CACHE_LAYERS", cache().string()}});
    EXPECT_EQ(read.exit_code, 0) << read.err;
    EXPECT_EQ(read.json()["entries"], run({"cache", "stats", "--json"}).json()["entries"]);
}

TEST_F(Cache, AnArchiveThatCannotBeOpenedIsNamedWithTheCause) {
    for (const char* command : {"export", "import"}) {
        const Outcome outcome = run({command, "/nowhere/cache.tar.gz"});
        EXPECT_EQ(outcome.exit_code, 1) << command;
        EXPECT_NE(outcome.err.find("archive /nowhere/cache.tar.gz: "), std::string::npos) << outcome.err;
        EXPECT_NE(outcome.err.find("No such file or directory"), std::string::npos) << outcome.err;
    }
}

TEST_F(Cache, PrewarmCompilesTheActivationThatIsAskedFor) {
    if (!run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>()) GTEST_SKIP() << "there is no NVRTC";
    const auto kernels_with = [&](const std::vector<std::string>& more) {
        std::vector<std::string> arguments{"prewarm", "--shape", "2,16,16,0,1", "--tokens", "8", "--arch", "sm_90a"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        EXPECT_EQ(run({"cache", "clear", "--yes"}).exit_code, 0);
        EXPECT_EQ(run(arguments).exit_code, 0);
        int found = 0;
        const nlohmann::json entries = run({"cache", "list", "--json"}).json()["entries"];
        for (const auto& one : entries) {
            const auto kernel = one["kernel"].get<std::string>();
            if (kernel.rfind("activation ", 0) != 0) continue;
            ++found;
            EXPECT_NE(kernel.find("WIDTH=8 "), std::string::npos) << kernel;
            EXPECT_NE(kernel.find("ACTIVATION=4 "), std::string::npos) << kernel;
            EXPECT_NE(kernel.find("INTERLEAVED=1 "), std::string::npos) << kernel;
        }
        return found;
    };
    EXPECT_EQ(kernels_with({"--activation", "swiglu_clamped", "--gate-layout", "interleaved"}), 3);
    EXPECT_EQ(kernels_with({"--activation", "none"}), 0);
    EXPECT_EQ(kernels_with({"--y-rows", "token"}), 0) << "of what is summed there is none";
    EXPECT_EQ(run({"prewarm", "--shape", "2,16,16,0,1", "--activation", "tanh"}).exit_code, 2);
}

TEST_F(Cache, HasAKernelForEachTypeThatScalesMayHave) {
    if (!run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>()) GTEST_SKIP() << "there is no NVRTC";
    const auto prewarmed = [&](const std::string& weights) {
        const nlohmann::json report = run({"prewarm", "--shape", "2,64,32,0,1", "--tokens", "8", "--arch", "sm_90a",
                                           "--json", "--weights", weights})
                                          .json();
        std::vector<std::string> stored;
        for (const auto& problem : report["problems"]) stored.push_back(problem["weights"]);
        return std::pair(stored, report["compiled"].get<int>());
    };
    using Formats = std::vector<std::string>;
    EXPECT_EQ(prewarmed("mxfp4").first, (Formats{"mxfp4 block 32", "mxfp4 block 32 uint8"}));
    EXPECT_EQ(prewarmed("mxfp4:uint8"), std::pair(Formats{"mxfp4 block 32 uint8"}, 0));
    EXPECT_EQ(prewarmed("mxfp4:e8m0"), std::pair(Formats{"mxfp4 block 32"}, 0));
    EXPECT_EQ(prewarmed("fp8:32:bf16"), std::pair(Formats{"fp8 block 32 bf16"}, 1)) << "products are there";
    EXPECT_EQ(prewarmed("fp8:32"), std::pair(Formats{"fp8 block 32", "fp8 block 32 bf16", "fp8 block 32 e8m0"}, 2));
}

TEST_F(Cache, HoldsWhatPrewarmCompiledUntilItIsCleared) {
    if (!run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>()) GTEST_SKIP() << "there is no NVRTC";
    const Outcome first = run(prewarming);
    ASSERT_EQ(first.exit_code, 0) << first.err;
    const nlohmann::json made = first.json();
    EXPECT_GT(made["compiled"], 0);
    EXPECT_EQ(made["compiled"], made["kernels"]);
    EXPECT_EQ(made["found"], 0);

    const nlohmann::json again = run(prewarming).json();
    EXPECT_EQ(again["compiled"], 0);
    EXPECT_EQ(again["found"], made["kernels"]);
    std::vector<std::string> text = prewarming;
    text.pop_back();
    const std::string words = run(text).out;
    EXPECT_NE(words.find(" 0 compiled, " + std::to_string(made["kernels"].get<int>()) + " found"), std::string::npos)
        << words;

    const nlohmann::json list = run({"cache", "list", "--json"}).json()["entries"];
    EXPECT_EQ(list.size(), made["kernels"].get<std::size_t>());
    const nlohmann::json stats = run({"cache", "stats", "--json"}).json();
    EXPECT_EQ(stats["entries"], made["kernels"]);
    EXPECT_GT(stats["bytes"], 0);
    EXPECT_NE(run({"cache", "stats"}).out.find("Size:"), std::string::npos);
    EXPECT_NE(run({"cache", "list"}).out.find(list[0]["key"].get<std::string>().substr(0, 12)), std::string::npos);
    const std::string key = list[0]["key"];
    const nlohmann::json entry = run({"cache", "inspect", key.substr(0, 16), "--json"}).json();
    EXPECT_EQ(entry["entry"]["key"], key);
    EXPECT_EQ(entry["entry"]["arch"], "sm_90a");
    EXPECT_TRUE(entry["metadata"].is_object());
    EXPECT_NE(run({"cache", "inspect", key}).out.find("registers"), std::string::npos);
    EXPECT_EQ(run({"cache", "verify"}).exit_code, 0);

    // One damaged byte: found by verify, a miss for prewarm.
    const std::string file = list[0]["file"];
    std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
    stream.seekg(-40, std::ios::end);
    const auto position = stream.tellg();
    const auto byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(position);
    stream.put(byte);
    stream.close();
    const Outcome damaged = run({"cache", "verify", "--json"});
    EXPECT_EQ(damaged.exit_code, 1);
    ASSERT_EQ(damaged.json()["unsound"].size(), 1U);
    EXPECT_EQ(damaged.json()["unsound"][0]["file"], file);
    const nlohmann::json mended = run(prewarming).json();
    EXPECT_EQ(mended["compiled"], 1);
    EXPECT_EQ(run({"cache", "verify"}).exit_code, 0);

    // Of the activation: forward, and backward with and without it written.
    const auto activations = std::count_if(list.begin(), list.end(), [](const auto& one) {
        return one["kernel"].template get<std::string>().rfind("activation WIDTH=16 ", 0) == 0;
    });
    EXPECT_EQ(activations, 3) << list;

    EXPECT_EQ(run({"cache", "clear", "--yes", "--json"}).json()["removed"], made["kernels"]);
    EXPECT_EQ(run({"cache", "stats", "--json"}).json()["entries"], 0);
}

}  // namespace
}  // namespace smlora::tool
