// verify and bench on the CPU backend, and the reference that verify trusts.
#include "program.hpp"
#include "smlora_tune/host_rows.hpp"
#include "smlora_tune/operands.hpp"
#include "smlora_tune/reference.hpp"
#include "smlora_tune/verification.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
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

TEST(HostRouting, SortsStablyAndPutsEntriesLeftOutLast) {
    const HostRouting routing = host_routing({2, 0, -1, 2, 0, 1}, 4);
    EXPECT_EQ(routing.sorted_scattered_idxs, (std::vector<std::int64_t>{1, 4, 5, 0, 3, 2}));
    EXPECT_EQ(routing.sorted_expert_idxs, (std::vector<std::int64_t>{0, 0, 1, 2, 2, 4}));
    EXPECT_EQ(routing.expert_offsets, (std::vector<std::int64_t>{2, 3, 5, 5}));
    EXPECT_EQ(routing.positions, (std::vector<std::int64_t>{3, 0, 5, 4, 1, 2}));
}

/// The formulas once more, as plainly as they can be written, on one problem with everything in it.
class Plain {
 public:
    explicit Plain(const Operands& operands) : o_(operands), p_(operands.problem) {
        std::vector<std::int64_t> experts(static_cast<std::size_t>(p_.E));
        std::iota(experts.begin(), experts.end(), 0);
        x_ = read_elements(o_.x, 0, o_.x.tensor.numel());
        dy_ = read_elements(o_.dy, 0, o_.dy.tensor.numel());
        W_ = read_experts(o_.W, experts);
        A_ = read_experts(o_.A, experts);
        B_ = read_experts(o_.B, experts);
        bias_ = read_elements(o_.bias, 0, p_.E * p_.N);
        gates_ = read_elements(o_.gates, 0, o_.T * p_.top_k);
    }

    double x(std::int64_t t, std::int64_t c) const { return x_[at(t * p_.K + c)]; }
    double dy(std::int64_t t, std::int64_t n) const { return dy_[at(t * p_.N + n)]; }
    double W(std::int64_t e, std::int64_t c, std::int64_t n) const { return W_[at((e * p_.N + n) * p_.K + c)]; }
    double A(std::int64_t e, std::int64_t r, std::int64_t c) const { return A_[at((e * p_.R + r) * p_.K + c)]; }
    double B(std::int64_t e, std::int64_t n, std::int64_t r) const { return B_[at((e * p_.N + n) * p_.R + r)]; }
    double bias(std::int64_t e, std::int64_t n) const { return bias_[at(e * p_.N + n)]; }
    double gate(std::int64_t f) const { return gates_[at(f)]; }

    double xa(std::int64_t t, std::int64_t e, std::int64_t r) const {
        double sum = 0;
        for (std::int64_t c = 0; c < p_.K; ++c) sum += x(t, c) * A(e, r, c);
        return static_cast<double>(Operands::scaling) * sum;
    }
    double yb(std::int64_t t, std::int64_t e, std::int64_t r) const {
        double sum = 0;
        for (std::int64_t n = 0; n < p_.N; ++n) sum += dy(t, n) * B(e, n, r);
        return static_cast<double>(Operands::scaling) * sum;
    }
    double y(std::int64_t t, std::int64_t e, std::int64_t n, bool adapter) const {
        double sum = bias(e, n);
        for (std::int64_t c = 0; c < p_.K; ++c) sum += x(t, c) * W(e, c, n);
        for (std::int64_t r = 0; adapter && r < p_.R; ++r) sum += xa(t, e, r) * B(e, n, r);
        return sum;
    }
    double dx(std::int64_t t, std::int64_t e, std::int64_t c) const {
        double sum = 0;
        for (std::int64_t n = 0; n < p_.N; ++n) sum += dy(t, n) * W(e, c, n);
        for (std::int64_t r = 0; r < p_.R; ++r) sum += yb(t, e, r) * A(e, r, c);
        return sum;
    }

 private:
    static std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }
    const Operands& o_;
    const Problem& p_;
    std::vector<double> x_, dy_, W_, A_, B_, bias_, gates_;
};

TEST(Reference, IsWhatTheFormulasSay) {
    EngineOptions engine_options;
    engine_options.backend = Backend::cpu;
    const Engine cpu(engine_options);
    Problem p;
    p.E = 6;
    p.K = 10;
    p.N = 7;
    p.R = 3;
    p.top_k = 2;
    p.dtype = p.adapter_dtype = DType::fp32;
    p.weight_layout = WeightLayout::enk;
    p.x_rows = RowOrder::token;
    p.y_rows = RowOrder::token;
    p.bias = p.gates = true;
    OperandOptions options;
    options.T = 11;
    options.left_out = 0.2;
    options.skew = Skew::zipf;
    const Operands operands(cpu, p, options);
    const HostRouting routing = host_routing(operands.top_idx_host, p.E);
    const std::vector<std::int64_t> tokens{0, 3, 4, 10};
    const ReferenceRows rows = reference_rows(cpu, operands, routing, tokens);
    const Plain plain(operands);
    const auto expert = [&](std::int64_t f) { return operands.top_idx_host[static_cast<std::size_t>(f)]; };

    std::vector<double> base, y, dx, xa, yb, dgates;
    for (const std::int64_t t : tokens) {
        std::vector<double> base_row(static_cast<std::size_t>(p.N)), y_row = base_row;
        std::vector<double> dx_row(static_cast<std::size_t>(p.K));
        for (std::int64_t f = t * p.top_k; f < (t + 1) * p.top_k; ++f) {
            const std::int64_t e = expert(f);
            double dgate = 0;
            for (std::int64_t n = 0; e >= 0 && n < p.N; ++n) {
                base_row[static_cast<std::size_t>(n)] += plain.gate(f) * plain.y(t, e, n, false);
                y_row[static_cast<std::size_t>(n)] += plain.gate(f) * plain.y(t, e, n, true);
                dgate += plain.dy(t, n) * plain.y(t, e, n, true);
            }
            for (std::int64_t c = 0; e >= 0 && c < p.K; ++c) {
                dx_row[static_cast<std::size_t>(c)] += plain.gate(f) * plain.dx(t, e, c);
            }
            for (std::int64_t r = 0; r < p.R; ++r) {
                xa.push_back(e >= 0 ? plain.xa(t, e, r) : 0);
                yb.push_back(e >= 0 ? plain.yb(t, e, r) : 0);
            }
            dgates.push_back(dgate);
        }
        base.insert(base.end(), base_row.begin(), base_row.end());
        y.insert(y.end(), y_row.begin(), y_row.end());
        dx.insert(dx.end(), dx_row.begin(), dx_row.end());
    }
    EXPECT_LT(compare(rows.base, base, static_cast<std::size_t>(p.N)).worst_row, 1e-12);
    EXPECT_LT(compare(rows.y, y, static_cast<std::size_t>(p.N)).worst_row, 1e-12);
    EXPECT_LT(compare(rows.dx, dx, static_cast<std::size_t>(p.K)).worst_row, 1e-12);
    EXPECT_LT(compare(rows.xa, xa, static_cast<std::size_t>(p.R)).worst_row, 1e-12);
    EXPECT_LT(compare(rows.yb, yb, static_cast<std::size_t>(p.R)).worst_row, 1e-12);
    EXPECT_LT(compare(rows.dgates, dgates, static_cast<std::size_t>(p.top_k)).worst_row, 1e-12);

    const std::vector<std::int64_t> experts{1, 2, 5};
    const ReferenceGradients gradients = reference_gradients(cpu, operands, routing, experts);
    std::vector<double> dA, dB;
    for (const std::int64_t e : experts) {
        std::vector<double> dA_e(static_cast<std::size_t>(p.R * p.K)), dB_e(static_cast<std::size_t>(p.N * p.R));
        for (std::int64_t f = 0; f < operands.M; ++f) {
            if (expert(f) != e) continue;
            const std::int64_t t = f / p.top_k;
            for (std::int64_t r = 0; r < p.R; ++r) {
                const double yb_f = plain.gate(f) * plain.yb(t, e, r);
                const double xa_f = plain.gate(f) * plain.xa(t, e, r);
                for (std::int64_t c = 0; c < p.K; ++c)
                    dA_e[static_cast<std::size_t>(r * p.K + c)] += yb_f * plain.x(t, c);
                for (std::int64_t n = 0; n < p.N; ++n)
                    dB_e[static_cast<std::size_t>(n * p.R + r)] += xa_f * plain.dy(t, n);
            }
        }
        dA.insert(dA.end(), dA_e.begin(), dA_e.end());
        dB.insert(dB.end(), dB_e.begin(), dB_e.end());
    }
    EXPECT_LT(compare(gradients.dA, dA, static_cast<std::size_t>(p.R * p.K)).worst_row, 1e-12);
    EXPECT_LT(compare(gradients.dB, dB, static_cast<std::size_t>(p.N * p.R)).worst_row, 1e-12);
}

TEST(Operands, RowsOfALargeTensorAreAllDifferent) {
    EngineOptions engine_options;
    engine_options.backend = Backend::cpu;
    const Engine cpu(engine_options);
    // Longer than what is drawn, so that values repeat, with rows of a power of two.
    constexpr std::int64_t width = 1024;
    constexpr std::int64_t height = 9000;
    Array array;
    array.buffer = Buffer(cpu, static_cast<std::size_t>(width * height) * size_of(DType::bf16));
    array.tensor = {array.buffer.data(), DType::bf16, {height, width}};
    fill_random(array.buffer, width * height, DType::bf16, Distribution::normal, 1, 0, "W");
    std::set<std::vector<double>> beginnings;
    double sum = 0;
    double squares = 0;
    for (std::int64_t row = 0; row < height; ++row) {
        beginnings.insert(read_elements(array, row * width, 8));
        for (const double value : read_elements(array, row * width, width)) {
            sum += value;
            squares += value * value;
        }
    }
    EXPECT_EQ(beginnings.size(), static_cast<std::size_t>(height));
    EXPECT_NEAR(sum / (width * height), 0, 0.01);
    EXPECT_NEAR(squares / (width * height), 1, 0.01);
}

}  // namespace
}  // namespace smlora::tool
