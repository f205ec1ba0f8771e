// The command line as a whole: help, exit codes, what goes to which stream.
#include "program.hpp"

#include <smlora/version.hpp>

#include <gtest/gtest.h>

namespace smlora::tool {
namespace {

using CommandLine = ProgramTest;

TEST_F(CommandLine, HelpGoesToStdoutAndTellsTheExitCodes) {
    const Outcome help = run({"--help"});
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_EQ(help.err, "");
    for (const char* word : {"info", "prewarm", "verify", "bench", "cache", "Exit codes", "needs a GPU"}) {
        EXPECT_NE(help.out.find(word), std::string::npos) << word << "\n" << help.out;
    }
}

TEST_F(CommandLine, EverySubCommandHelpsWithAnExample) {
    for (const char* command : {"info", "prewarm", "verify", "bench", "cache"}) {
        const Outcome help = run({command, "--help"});
        EXPECT_EQ(help.exit_code, 0) << command;
        EXPECT_NE(help.out.find(std::string("  smlora-tune ") + command), std::string::npos) << help.out;
    }
}

TEST_F(CommandLine, VersionIsOneLine) {
    const Outcome version = run({"--version"});
    EXPECT_EQ(version.exit_code, 0);
    EXPECT_EQ(version.out, "smlora-tune " SMLORA_VERSION "\n");
}

TEST_F(CommandLine, WrongUsageIsExitCodeTwoAndSaysWhatIsWrong) {
    const std::pair<std::vector<std::string>, const char*> wrong[] = {
        {{}, "sub-command"},
        {{"frobnicate"}, "frobnicate"},
        {{"info", "--frobnicate"}, "frobnicate"},
        {{"prewarm"}, "--shape"},
        {{"prewarm", "--shape", "8,64,32,4"}, "E,K,N,R,top_k"},
        {{"prewarm", "--shape", "8,64,32,4,2", "--arch", "sm_12"}, "sm_12"},
        {{"prewarm", "--model", "gpt-9"}, "qwen3-30b-a3b"},
        {{"prewarm", "--config", "/nowhere/config.json"}, "/nowhere/config.json"},
        {{"prewarm", "--shape", "8,64,32,4,2", "--jobs", "0"}, "jobs"},
        {{"prewarm", "--shape", "8,64,32,4,2", "--tokens", "12,-1"}, "tokens"},
        {{"verify", "--shape", "8,64,32,4,2", "--device", "tpu"}, "tpu"},
        {{"verify", "--shape", "8,64,32,4,2", "--dtype", "fp64"}, "fp64"},
        {{"verify", "--shape", "8,64,32,4,2", "--device", "cpu", "--skew", "odd"}, "odd"},
        {{"bench", "--shape", "8,64,32,4,2", "--device", "cpu", "--op", "backward"}, "backward"},
        {{"bench", "--shape", "8,64,32,0,2", "--device", "cpu", "--op", "step"}, "rank"},
        {{"bench", "--shape", "8,64,32,4,2", "--device", "cpu", "--tokens", "0"}, "--tokens"},
        {{"cache"}, "inspect"},
        {{"cache", "frobnicate"}, "frobnicate"},
        {{"cache", "inspect"}, "key"},
    };
    for (const auto& [arguments, word] : wrong) {
        const Outcome outcome = run(arguments);
        std::string line;
        for (const std::string& argument : arguments) line += argument + " ";
        EXPECT_EQ(outcome.exit_code, 2) << line << outcome.err;
        EXPECT_EQ(outcome.out, "") << line;
        EXPECT_NE(outcome.err.find(word), std::string::npos) << line << outcome.err;
    }
}

TEST_F(CommandLine, InfoTellsOfTheMachineAndTheCache) {
    const Outcome text = run({"info"});
    EXPECT_EQ(text.exit_code, 0) << text.err;
    EXPECT_NE(text.out.find(cache().string()), std::string::npos) << text.out;
    const nlohmann::json json = run({"info", "--json"}).json();
    EXPECT_EQ(json["command"], "info");
    EXPECT_EQ(json["version"], SMLORA_VERSION);
    EXPECT_EQ(json["driver"]["found"].get<bool>(), json["driver"]["error"] == "");
    EXPECT_EQ(json["nvrtc"]["found"].get<bool>(), json["nvrtc"]["error"] == "");
    EXPECT_EQ(json["archs"].empty(), !json["nvrtc"]["found"].get<bool>());
    // Below it may be the layer that comes with the tool.
    ASSERT_GE(json["cache"]["layers"].size(), 1U);
    ASSERT_LE(json["cache"]["layers"].size(), 2U);
    EXPECT_EQ(json["cache"]["layers"][0]["root"], cache().string());
    EXPECT_EQ(json["cache"]["layers"][0]["writable"], true);
}

TEST_F(CommandLine, InfoSaysWhyACacheCannotBeUsed) {
    std::filesystem::create_directories(cache());
    std::filesystem::permissions(cache(), std::filesystem::perms::all);
    const nlohmann::json json = run({"info", "--json"}).json();
    EXPECT_NE(json["cache"]["error"].get<std::string>().find(cache().string()), std::string::npos) << json;
}

TEST_F(CommandLine, WithoutAGpuWhatNeedsOneIsExitCodeThree) {
    if (!run({"info", "--json"}).json()["devices"].empty()) GTEST_SKIP() << "there is a GPU";
    for (const char* command : {"verify", "bench"}) {
        const Outcome outcome = run({command, "--shape", "8,64,32,4,2"});
        EXPECT_EQ(outcome.exit_code, 3) << outcome.err;
        EXPECT_EQ(outcome.out, "");
        EXPECT_NE(outcome.err, "");
    }
}

}  // namespace
}  // namespace smlora::tool
