// verify and bench on the CPU backend.
#include "program.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

namespace smlora::tool {
namespace {

using Verify = ProgramTest;
using Bench = ProgramTest;

std::set<std::string> operations_of(const nlohmann::json& checks) {
    std::set<std::string> names;
    for (const auto& check : checks) names.insert(check["operation"].get<std::string>());
    return names;
}

TEST_F(Verify, RunsEveryOperationInEveryType) {
    for (const char* dtype : {"bf16", "fp16", "fp32", "fp64"}) {
        const Outcome outcome =
            run({"verify", "--device", "cpu", "--shape", "8,48,40,5,3", "--tokens", "33", "--dtype", dtype, "--json"});
        EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
        const nlohmann::json json = outcome.json();
        EXPECT_EQ(json["ok"], true);
        ASSERT_EQ(json["cases"].size(), 1U);
        const std::set<std::string> names = operations_of(json["cases"][0]["checks"]);
        for (const char* name : {"route", "group", "group, gates", "scatter2scatter", "forward", "forward, scaling 0",
                                 "backward_input", "backward_lora", "backward_lora, no xa, yb", "combine",
                                 "combine_backward", "activation, swiglu", "activation_backward, swiglu_clamped"}) {
            EXPECT_EQ(names.count(name), 1U) << name;
        }
    }
}

TEST_F(Verify, TakesBothProjectionsOfAConfigWithEveryFlag) {
    const std::string config = write("config.json", R"({"model_type": "gpt_oss", "num_local_experts": 6,
        "hidden_size": 40, "intermediate_size": 24, "num_experts_per_tok": 2})");
    const Outcome outcome =
        run({"verify", "--device",        "cpu",  "--config",      config,  "--rank", "3",    "--tokens",
             "0,1,29", "--adapter-dtype", "fp32", "--index-dtype", "int64", "--skew", "zipf", "--left-out",
             "0.2",    "--b-layout",      "nre",  "--sample",      "7"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
    EXPECT_NE(outcome.out.find("gpt_oss gate_up, 29 tokens"), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find("gpt_oss down, 29 tokens"), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find("dgates"), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find("All results are within tolerance."), std::string::npos) << outcome.out;
    EXPECT_EQ(outcome.out.find('\x1b'), std::string::npos) << "colour without a terminal";
}

TEST_F(Verify, TakesEveryOrderOfRowsAndTheWorstBalance) {
    for (const char* order : {"token", "scattered", "grouped"}) {
        const Outcome outcome =
            run({"verify",     "--device", "cpu",      "--shape", "5,24,16,2,2",     "--x-rows", order,
                 "--y-rows",   order,      "--skew",   "one",     "--weight-layout", "enk",      "--bias",
                 "--b-layout", "enr",      "--tokens", "17",      "--dtype",         "fp32"});
        EXPECT_EQ(outcome.exit_code, 0) << order << outcome.out << outcome.err;
    }
}

TEST_F(Verify, WithoutAnAdapterChecksTheBaseProduct) {
    const Outcome outcome = run({"verify", "--device", "cpu", "--shape", "4,24,16,0,2", "--tokens", "9", "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
    const std::set<std::string> names = operations_of(outcome.json()["cases"][0]["checks"]);
    EXPECT_EQ(names.count("scatter2scatter"), 1U);
    EXPECT_EQ(names.count("backward_lora"), 0U);
}

TEST_F(Bench, TellsTimesCeilingsAndTheFloor) {
    const Outcome outcome = run({"bench", "--device", "cpu", "--shape", "8,64,48,4,2", "--tokens", "32", "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    const nlohmann::json json = outcome.json();
    EXPECT_EQ(json["protocol"], "burst");
    ASSERT_EQ(json["cases"].size(), 1U);
    const nlohmann::json& bench_case = json["cases"][0];
    EXPECT_EQ(bench_case["tokens"], 32);
    EXPECT_EQ(bench_case["rows"], 64);
    const double tflops = bench_case["ceilings"]["tflops"];
    const double gbs = bench_case["ceilings"]["gbs"];
    EXPECT_GT(tflops, 0);
    EXPECT_GT(gbs, 0);
    EXPECT_NE(bench_case["ceilings"]["tflops_source"].get<std::string>().find("smlora's own"), std::string::npos);
    std::vector<std::string> ops;
    for (const auto& result : bench_case["results"]) {
        ops.push_back(result["op"]);
        const double middle = result["median_seconds"];
        EXPECT_GT(result["min_seconds"], 0);
        EXPECT_LE(result["min_seconds"], middle);
        EXPECT_GE(result["samples_seconds"].size(), 3U);
        EXPECT_NEAR(result["floor_fraction"].get<double>(), result["floor_seconds"].get<double>() / middle, 1e-9);
        if (result["op"] != "step") {
            const double floor =
                std::max(result["flop"].get<double>() / (tflops * 1e12), result["bytes"].get<double>() / (gbs * 1e9));
            EXPECT_NEAR(result["floor_seconds"].get<double>(), floor, 1e-6 * floor);
        }
    }
    EXPECT_EQ(ops, (std::vector<std::string>{"base", "forward", "dx", "lora_grad", "step"}));
}

TEST_F(Bench, TakesCeilingsAsGivenAndOnlyTheOperationsAskedFor) {
    const Outcome outcome =
        run({"bench", "--device", "cpu", "--shape", "8,64,48,4,2", "--tokens", "8,16", "--op", "forward,dx",
             "--ceiling-tflops", "0.5", "--ceiling-gbs", "20", "--sustained", "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    const nlohmann::json json = outcome.json();
    EXPECT_EQ(json["protocol"], "sustained");
    ASSERT_EQ(json["cases"].size(), 2U);
    EXPECT_EQ(json["cases"][1]["tokens"], 16);
    EXPECT_EQ(json["cases"][0]["results"].size(), 2U);
    EXPECT_NEAR(json["cases"][0]["ceilings"]["tflops"].get<double>(), 0.5, 1e-12);
    EXPECT_EQ(json["cases"][0]["ceilings"]["gbs_source"], "given");
}

TEST_F(Bench, ActivationsAreTimedWhenAskedForAndNeedAnEvenN) {
    const std::vector<std::string> command{"bench",
                                           "--device",
                                           "cpu",
                                           "--tokens",
                                           "8",
                                           "--op",
                                           "activation,activation_backward",
                                           "--ceiling-tflops",
                                           "0.5",
                                           "--ceiling-gbs",
                                           "20",
                                           "--json",
                                           "--shape"};
    std::vector<std::string> even = command, odd = command;
    even.push_back("4,24,16,2,2");
    odd.push_back("4,24,15,2,2");
    const Outcome outcome = run(even);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.json()["cases"][0]["results"].size(), 2U);
    const Outcome refused = run(odd);
    EXPECT_NE(refused.exit_code, 0);
    EXPECT_NE(refused.err.find("even N"), std::string::npos) << refused.err;
}

TEST_F(Bench, RowOperationsAreTimedWhenAskedForInEveryRowOrder) {
    for (const std::vector<std::string>& orders :
         {std::vector<std::string>{"--x-rows", "token", "--y-rows", "grouped"},
          std::vector<std::string>{"--x-rows", "grouped", "--y-rows", "token", "--gates"}}) {
        std::vector<std::string> command{"bench",
                                         "--device",
                                         "cpu",
                                         "--shape",
                                         "4,24,16,0,2",
                                         "--tokens",
                                         "8",
                                         "--op",
                                         "route,group,combine,combine_backward",
                                         "--ceiling-tflops",
                                         "0.5",
                                         "--ceiling-gbs",
                                         "20",
                                         "--left-out",
                                         "0.2",
                                         "--json"};
        command.insert(command.end(), orders.begin(), orders.end());
        const Outcome outcome = run(command);
        ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
        const auto json = outcome.json();
        const auto& results = json["cases"][0]["results"];
        ASSERT_EQ(results.size(), 4U);
        EXPECT_EQ(results[3]["op"], "combine_backward");
        for (const auto& result : results) EXPECT_GT(result["floor_seconds"].get<double>(), 0);
    }
}

TEST_F(Bench, TableIsOnStdoutAndContextOnStderr) {
    const Outcome outcome = run({"bench", "--device", "cpu", "--shape", "8,64,48,4,2", "--tokens", "8", "--op",
                                 "forward", "--ceiling-tflops", "0.5", "--ceiling-gbs", "20"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("median"), std::string::npos) << outcome.out;
    EXPECT_EQ(outcome.out.find("ceilings"), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.err.find("ceilings"), std::string::npos) << outcome.err;
    EXPECT_EQ((outcome.out + outcome.err).find('\x1b'), std::string::npos) << "control codes without a terminal";
}

}  // namespace
}  // namespace smlora::tool
