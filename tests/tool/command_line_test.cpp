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
    for (const char* word : {"info", "models", "prewarm", "tune", "explain", "verify", "bench", "cache", "export",
                             "import", "Exit codes", "needs a GPU"}) {
        EXPECT_NE(help.out.find(word), std::string::npos) << word << "\n" << help.out;
    }
}

TEST_F(CommandLine, EverySubCommandHelpsWithAnExample) {
    for (const char* command :
         {"info", "models", "prewarm", "tune", "explain", "verify", "bench", "cache", "export", "import"}) {
        const Outcome help = run({command, "--help"});
        EXPECT_EQ(help.exit_code, 0) << command;
        EXPECT_NE(help.out.find(std::string("  smlora-tune ") + command), std::string::npos) << help.out;
    }
}

TEST_F(CommandLine, HelpIsInPlainWords) {
    for (const char* command :
         {"info", "models", "prewarm", "tune", "explain", "verify", "bench", "cache", "export", "import"}) {
        const std::string help = run({command, "--help"}).out;
        for (const char* mark : {"Excludes:", "REQUIRED", "=both", "=cuda", " ..."}) {
            EXPECT_EQ(help.find(mark), std::string::npos) << command << " shows " << mark << "\n" << help;
        }
    }
    EXPECT_NE(run({"verify", "--help"}).out.find("gate_up, down or both [both]"), std::string::npos);
    // No command but those with a --device speaks of it.
    EXPECT_EQ(run({"prewarm", "--help"}).out.find("--device"), std::string::npos);
}

TEST_F(CommandLine, VersionIsOneLine) {
    for (const char* argument : {"--version", "-V", "version"}) {
        const Outcome version = run({argument});
        EXPECT_EQ(version.exit_code, 0);
        EXPECT_EQ(version.out, "smlora-tune " SMLORA_VERSION "\n");
    }
}

TEST_F(CommandLine, HelpCanBeAskedForInEveryWay) {
    const std::string help = run({"--help"}).out;
    for (const char* argument : {"-h", "help"}) EXPECT_EQ(run({argument}).out, help) << argument;
    const std::string prewarm = run({"prewarm", "--help"}).out;
    EXPECT_EQ(run({"help", "prewarm"}).out, prewarm);
    EXPECT_EQ(run({"prewarm", "help"}).out, prewarm);
    EXPECT_EQ(run({"help", "cache", "inspect"}).out, run({"cache", "inspect", "--help"}).out);
}

TEST_F(CommandLine, WhatIsMistypedIsNamedInTheOrderGivenWithTheNearestName) {
    const auto error = [&](const std::vector<std::string>& arguments) {
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.exit_code, 2);
        return outcome.err.substr(0, outcome.err.find('\n'));
    };
    EXPECT_EQ(error({"prewarn", "--shape", "4,64,32,8,5", "--arch", "sm_80"}),
              "smlora-tune: unknown sub-command 'prewarn'; did you mean prewarm?");
    EXPECT_EQ(error({"cache", "stat"}), "smlora-tune: unknown sub-command 'stat'; did you mean stats?");
    EXPECT_EQ(error({"frobnicate"}).rfind("smlora-tune: unknown sub-command 'frobnicate': expected one of info", 0),
              0U);
    EXPECT_EQ(error({"tune", "--archs", "sm_80", "x"}), "smlora-tune: unexpected arguments: --archs sm_80 x");
    EXPECT_EQ(error({"prewarm", "--shpe", "4,64,32,8,5"}),
              "smlora-tune: unexpected arguments: --shpe 4,64,32,8,5; did you mean --shape?");
}

TEST_F(CommandLine, AnEmptyArgumentIsNotAnOptionThatIsNotGiven) {
    const std::vector<std::string> shape{"--shape", "8,64,32,4,2"};
    const std::pair<const char*, const char*> options[] = {
        {"prewarm", "--weights"}, {"prewarm", "--config"}, {"prewarm", "--cache-dir"}, {"explain", "--arch"},
        {"explain", "--gpu"},     {"tune", "--memory"},    {"tune", "--shard"},        {"tune", "--device"},
        {"explain", "--tokens"},  {"prewarm", "--arch"},   {"bench", "--op"},
    };
    for (const auto& [command, option] : options) {
        std::vector<std::string> arguments{command, option, ""};
        arguments.insert(arguments.end(), shape.begin(), shape.end());
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.exit_code, 2) << command << ' ' << option << outcome.err;
        EXPECT_EQ(outcome.err.rfind("smlora-tune: " + std::string(option) + ": expected a value, got ''", 0), 0U)
            << outcome.err;
    }
    EXPECT_EQ(run({"cache", "stats", "--cache-dir", ""}).exit_code, 2);
    EXPECT_EQ(run({"export", ""}).err.rfind("smlora-tune: file: expected a value, got ''", 0), 0U);
}

TEST_F(CommandLine, ModelsAreListed) {
    const Outcome text = run({"models"});
    EXPECT_EQ(text.exit_code, 0);
    const nlohmann::json models = run({"models", "--json"}).json()["models"];
    ASSERT_GT(models.size(), 5U);
    for (const auto& model : models) {
        EXPECT_NE(text.out.find(model["name"].get<std::string>()), std::string::npos) << text.out;
        EXPECT_GE(model["num_experts"], model["top_k"]);
    }
}

TEST_F(CommandLine, WrongUsageIsExitCodeTwoAndSaysWhatIsWrong) {
    const std::pair<std::vector<std::string>, const char*> wrong[] = {
        {{}, "sub-command"},
        {{"frobnicate"}, "frobnicate"},
        {{"info", "--frobnicate"}, "frobnicate"},
        {{"prewarm"}, "--shape"},
        {{"prewarm", "--shape", "8,64,32,4"}, "E,K,N,R,top_k"},
        {{"prewarm", "--shape", "8,64,32,4,2", "--arch", "sm_12"}, "smlora-tune: --arch: expected one of sm_80, "},
        {{"prewarm", "--shape", "8,64,32,4,2", "--arch", "sm_80,,sm_90a"},
         "--arch: expected items separated by commas, got 'sm_80,,sm_90a'"},
        {{"prewarm", "--shape", "8,64,32,4,2", "--tokens", "1,,2"},
         "--tokens: expected items separated by commas, got '1,,2'"},
        {{"tune", "--shape", "8,64,32,4,2", "--tokens", "1,"},
         "--tokens: expected items separated by commas, got '1,'"},
        {{"explain", "--shape", "8,64,32,4,2", "--tokens", ",1"},
         "--tokens: expected items separated by commas, got ',1'"},
        {{"verify", "--shape", "8,64,32,4,2", "--device", "cpu", "--tokens", ","},
         "--tokens: expected items separated by commas, got ','"},
        {{"bench", "--shape", "8,64,32,4,2", "--device", "cpu", "--op", "base,,dx"},
         "--op: expected items separated by commas, got 'base,,dx'"},
        {{"prewarm", "--model", "gpt-9"}, "smlora-tune: --model: expected one of "},
        {{"tune", "--model", "gpt-9"}, "smlora-tune: --model: expected one of "},
        {{"prewarm", "--model", "olmoe", "--rank", "257"}, "--rank: expected a whole number from 0 to 256, got '257'"},
        {{"explain", "--shape", "8,64,32,4,2", "--arch", "sm_12"}, "smlora-tune: --arch: expected one of sm_80, "},
        {{"prewarm", "--config", "/nowhere/config.json"}, "/nowhere/config.json"},
        {{"prewarm", "--shape", "8,64,32,4,2", "--jobs", "0"},
         "--jobs: expected a whole number from 1 to 2147483647, got '0'"},
        {{"prewarm", "--shape", "8,64,32,4,2", "--tokens", "12,-1"},
         "--tokens: expected a whole number from 0 to 1099511627776, got '-1'"},
        {{"prewarm", "--shape", "8,64,32,4,2", "--tokens", "99999999999999999999"}, "got '99999999999999999999'"},
        {{"prewarm", "--model", "olmoe", "--rank", "x"}, "--rank: expected a whole number from 0 to 256, got 'x'"},
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
    EXPECT_NE(outcome.err.find("out of memory: use fewer --tokens"), std::string::npos) << outcome.err;
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
