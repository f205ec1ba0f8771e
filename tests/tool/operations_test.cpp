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
        for (const char* name :
             {"route", "group", "group, gates", "scatter2scatter", "forward", "forward, scaling 0", "backward_input",
              "backward_lora", "backward_lora, no xa, yb", "combine", "combine_backward", "activation, swiglu",
              "activation_backward, swiglu_clamped", "activation_backward, gates"}) {
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

/// All of dA and dB are multiples of a handful of rank rows' numbers, whose errors do not average out: with these seeds
/// their terms cancel.
TEST_F(Verify, RankOneOfAFewRowsIsWithinTolerance) {
    for (const char* seed : {"14", "18", "23", "29"}) {
        const Outcome outcome =
            run({"verify", "--device", "cpu", "--shape", "61,280,208,1,8", "--tokens", "1", "--skew", "one", "--gates",
                 "--y-rows", "token", "--dtype", "fp32", "--seed", seed});
        EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
    }
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

TEST_F(Verify, TakesEveryEncoding) {
    for (const char* weights : {"nf4", "nf4:32:double", "fp4:128", "int8", "mxfp4:uint8", "fp8:48:bf16:parts2", "mxfp8",
                                "nvfp4:divisor:parts2", "int4:64:fp16", "plain"}) {
        const Outcome outcome = run({"verify", "--device", "cpu", "--shape", "5,64,48,3,2", "--tokens", "17",
                                     "--weights", weights, "--dtype", "fp16", "--json"});
        ASSERT_EQ(outcome.exit_code, 0) << weights << outcome.out << outcome.err;
        const nlohmann::json done = outcome.json()["cases"][0];
        const std::set<std::string> names = operations_of(done["checks"]);
        const bool plain = std::string(weights) == "plain";
        EXPECT_EQ(names.count("dequantize"), plain ? 0U : 1U) << weights;
        EXPECT_EQ(names.count("backward_input"), 1U);
        const std::string encoding = std::string(weights).substr(0, std::string(weights).find(':'));
        EXPECT_EQ(done["weights"].get<std::string>().rfind(encoding, 0), 0U) << done["weights"];
    }
}

TEST_F(Verify, TakesTheEncodingOfAConfig) {
    const auto config = [&](const std::string& quantization) {
        return write("config.json", R"({"model_type": "qwen3_moe", "num_experts": 4, "hidden_size": 64,
            "moe_intermediate_size": 32, "num_experts_per_tok": 2, "quantization_config": )" +
                                        quantization + "}");
    };
    const auto verify = [&](const std::string& path, std::vector<std::string> more) {
        std::vector<std::string> command{"verify", "--device", "cpu", "--config", path, "--rank", "3", "--tokens", "9"};
        command.insert(command.end(), more.begin(), more.end());
        return run(command);
    };
    const std::string nf4 = config(R"({"quant_method": "bitsandbytes", "load_in_4bit": true,
        "bnb_4bit_quant_type": "nf4"})");
    const Outcome taken = verify(nf4, {});
    EXPECT_EQ(taken.exit_code, 0) << taken.err;
    EXPECT_NE(taken.out.find("qwen3_moe gate_up weights: nf4 block 64, 9 tokens"), std::string::npos) << taken.out;
    EXPECT_NE(
        taken.err.find("config.json: quantization_config of bitsandbytes: weights are nf4 block 64; where "
                       "Transformers alone loads the model, fused experts stay plain: give --weights plain for that\n"),
        std::string::npos)
        << taken.err;
    const Outcome plain = verify(nf4, {"--weights", "plain"});
    EXPECT_NE(plain.out.find("qwen3_moe gate_up, 9 tokens"), std::string::npos) << plain.out;
    EXPECT_EQ(plain.err.find("quantization_config"), std::string::npos) << plain.err;

    const Outcome rounded = verify(config(R"({"quant_method": "fp8", "weight_block_size": [32, 32],
        "scale_fmt": "ue8m0"})"),
                                   {});
    EXPECT_EQ(rounded.exit_code, 0) << rounded.err;
    EXPECT_NE(rounded.err.find("config.json: quantization_config of fp8: weights are fp8 block 32 e8m0; the scales are "
                               "e8m0 or fp32: prewarm compiles for each\n"),
              std::string::npos)
        << rounded.err;

    const std::string gptq = config(R"({"quant_method": "gptq", "bits": 4})");
    const Outcome refused = verify(gptq, {});
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_NE(refused.err.find("got \"gptq\"; --weights says how the experts are stored"), std::string::npos)
        << refused.err;
    EXPECT_EQ(verify(gptq, {"--weights", "int4:32"}).exit_code, 0);

    const Outcome ragged = verify(config(R"({"quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "strategy": "group",
        "group_size": 64, "symmetric": true}}}})"),
                                  {});
    EXPECT_EQ(ragged.exit_code, 2);
    EXPECT_NE(ragged.err.find("qwen3_moe down: problem.weights.block: expected a divisor of columns = 32, got 64"),
              std::string::npos)
        << ragged.err;
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

TEST_F(Bench, TimesUnpackingBesideTheProductsOfQuantisedWeights) {
    const std::vector<std::string> command{
        "bench", "--device",      "cpu", "--shape",   "4,64,48,2,2", "--tokens", "8", "--ceiling-tflops",
        "0.5",   "--ceiling-gbs", "20",  "--weights", "nf4"};
    std::vector<std::string> as_json = command;
    as_json.emplace_back("--json");
    const Outcome outcome = run(as_json);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const auto json = outcome.json();
    const auto& done = json["cases"][0];
    EXPECT_EQ(done["weights"], "nf4 block 64");
    EXPECT_TRUE(done["workspace_bytes"]["forward"].is_number()) << done;
    EXPECT_TRUE(done["workspace_bytes"]["dx"].is_number());
    const auto& unpack = done["results"].back();
    EXPECT_EQ(unpack["op"], "unpack");
    const double bytes = 4 * 64 * 48 * (2 + 0.5 + 4.0 / 64);
    EXPECT_EQ(unpack["bytes"], bytes);
    EXPECT_NEAR(unpack["floor_seconds"].get<double>(), bytes / 20e9, 1e-6 * bytes / 20e9);
    EXPECT_GT(unpack["median_seconds"], 0);

    const Outcome text = run(command);
    EXPECT_NE(text.out.find("\nunpack "), std::string::npos) << text.out;
    EXPECT_NE(text.out.find("memory while they run: forward "), std::string::npos) << text.out;

    std::vector<std::string> plain = command;
    plain.back() = "plain";
    EXPECT_EQ(run(plain).out.find("unpack"), std::string::npos);
    plain.insert(plain.end(), {"--op", "unpack"});
    const Outcome refused = run(plain);
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_NE(refused.err.find("--op: unpack needs quantised weights"), std::string::npos) << refused.err;
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
