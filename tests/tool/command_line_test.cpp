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
    for (const char* word : {"info", "prewarm", "tune", "explain", "verify", "bench", "cache", "export", "import",
                             "Exit codes", "needs a GPU"}) {
        EXPECT_NE(help.out.find(word), std::string::npos) << word << "\n" << help.out;
    }
}

TEST_F(CommandLine, EverySubCommandHelpsWithAnExample) {
    for (const char* command : {"info", "prewarm", "tune", "explain", "verify", "bench", "cache", "export", "import"}) {
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
        {{"prewarm", "--shape", "8,64,32,4,2", "--jobs", "0"},
         "--jobs: expected a whole number from 1 to 2147483647, got '0'"},
        {{"prewarm", "--shape", "8,64,32,4,2", "--tokens", "12,-1"},
         "--tokens: expected a whole number from 0 to 1099511627776, got '-1'"},
        {{"prewarm", "--shape", "8,64,32,4,2", "--tokens", "99999999999999999999"}, "got '99999999999999999999'"},
        {{"prewarm", "--model", "olmoe", "--rank", "x"}, "--rank: expected a whole number of at least 0, got 'x'"},
        {{"verify", "--shape", "8,64,32,4,2", "--device", "cpu", "--threads", "100000"},
         "--threads: expected a whole number from 1 to 1024, got '100000'"},
        {{"verify", "--shape", "8,64,32,4,2", "--device", "cpu", "--seed", "-1"}, "--seed: expected"},
        {{"verify", "--shape", "8,64,32,4,2", "--device", "cpu", "--sample", "1.5"}, "--sample: expected"},
        {{"verify", "--shape", "8,64,32,4,2", "--device", "cpu", "--left-out", "nan"},
         "--left-out: expected a number from 0 to 1, got 'nan'"},
        {{"explain", "--shape", "8,64,32,4,2", "--ceiling-gbs", "0"},
         "--ceiling-gbs: expected a number above 0, got '0'"},
        {{"tune", "--shape", "8,64,32,4,2", "--budget", "inf"}, "--budget: expected a number above 0, got 'inf'"},
        {{"tune", "--shape", "8,64,32,4,2", "--rounds", "0"}, "--rounds: expected"},
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

TEST_F(CommandLine, MoreTokensThanMemoryHoldsAreSaidToBe) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a sanitizer ends the program instead";
#endif
    // More than the 2^47 bytes of an address space, so that no setting of the system grants them.
    const Outcome outcome = run({"verify", "--shape", "64,64,32,4,64", "--device", "cpu", "--tokens", "1099511627776"});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_NE(outcome.err.find("out of memory: expected fewer --tokens"), std::string::npos) << outcome.err;
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
    for (const char* command : {"verify", "bench", "tune"}) {
        const Outcome outcome = run({command, "--shape", "8,64,32,4,2"});
        EXPECT_EQ(outcome.exit_code, 3) << outcome.err;
        EXPECT_EQ(outcome.out, "");
        EXPECT_NE(outcome.err, "");
    }
}

}  // namespace
}  // namespace smlora::tool
