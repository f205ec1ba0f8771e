// What must hold to the last bit.
#include "cpu/operations.hpp"
#include "unit/cpu/layer.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <thread>

namespace smlora::test {
namespace {

/// More than one tile in every direction.
LayerOptions large(DType dtype) {
    LayerOptions options;
    options.problem.E = 3;
    options.problem.K = 300;
    options.problem.N = 270;
    options.problem.R = 11;
    options.problem.top_k = 2;
    options.problem.dtype = dtype;
    options.problem.adapter_dtype = dtype;
    options.problem.y_rows = RowOrder::token;
    options.problem.gates = true;
    options.problem.bias = true;
    options.T = 350;
    options.tokens = Tokens::some_left_out;
    return options;
}

LayerOptions small(DType dtype) {
    LayerOptions options;
    options.problem.E = 4;
    options.problem.K = 96;
    options.problem.N = 53;
    options.problem.R = 5;
    options.problem.top_k = 2;
    options.problem.dtype = dtype;
    options.problem.adapter_dtype = dtype;
    options.T = 30;
    return options;
}

struct Step {
    Array y, xa, dx, yb, dgates, dA, dB;
    friend bool operator==(const Step& a, const Step& b) {
        return a.y.bytes() == b.y.bytes() && a.xa.bytes() == b.xa.bytes() && a.dx.bytes() == b.dx.bytes() &&
               a.yb.bytes() == b.yb.bytes() && a.dgates.bytes() == b.dgates.bytes() && a.dA.bytes() == b.dA.bytes() &&
               a.dB.bytes() == b.dB.bytes();
    }
};

Step run_step(const Layer& layer, util::ThreadPool& threads) {
    Step step{layer.make_y(),     layer.make_rank_rows(), layer.make_dx(), layer.make_rank_rows(),
              layer.make_gates(), layer.make_a(),         layer.make_b()};
    ForwardArgs forward = layer.forward_args();
    forward.y = step.y;
    forward.xa = step.xa;
    cpu::forward(threads, layer.problem, forward);
    BackwardInputArgs backward = layer.backward_input_args();
    backward.dx = step.dx;
    backward.yb = step.yb;
    if (layer.problem.gates) {
        backward.dgates = step.dgates;
        backward.x = layer.x;
        backward.bias = layer.bias;
    }
    cpu::backward_input(threads, layer.problem, backward);
    BackwardLoraArgs lora = layer.backward_lora_args();
    lora.xa = step.xa;
    lora.yb = step.yb;
    lora.dA = step.dA;
    lora.dB = step.dB;
    cpu::backward_lora(threads, layer.problem, lora);
    return step;
}

Array run_forward(const Layer& layer, const Problem& problem, float scaling) {
    util::ThreadPool threads(2);
    Array y = layer.make_y();
    ForwardArgs args = layer.forward_args();
    args.scaling = scaling;
    args.y = y;
    if (problem.R == 0) args.A = args.B = {};
    cpu::forward(threads, problem, args);
    return y;
}

Array run_backward_input(const Layer& layer, const Problem& problem, float scaling) {
    util::ThreadPool threads(2);
    Array dx = layer.make_dx();
    BackwardInputArgs args = layer.backward_input_args();
    args.scaling = scaling;
    args.dx = dx;
    if (problem.R == 0) args.A = args.B = {};
    cpu::backward_input(threads, problem, args);
    return dx;
}

Problem base_of(const Layer& layer) {
    Problem base = layer.problem;
    base.R = 0;
    return base;
}

void fill(Array& array, double value) {
    const Tensor& view = array.view();
    for (std::int64_t i = 0; i < view.shape[0]; ++i) {
        for (std::int64_t j = 0; j < view.shape[1]; ++j) {
            for (std::int64_t k = 0; k < view.shape[2]; ++k) array.set(value, i, j, k);
        }
    }
}

class Exactness : public testing::TestWithParam<DType> {};

TEST_P(Exactness, AStepHasTheSameBitsOnAnyNumberOfThreads) {
    const Layer layer(large(GetParam()));
    util::ThreadPool one(1);
    util::ThreadPool four(4);
    const Step expected = run_step(layer, one);
    EXPECT_TRUE(run_step(layer, four) == expected);
    EXPECT_TRUE(run_step(layer, four) == expected);
}

TEST_P(Exactness, ScalingOfZeroGivesTheBaseProductWhateverTheAdapterHolds) {
    Layer layer(small(GetParam()));
    const Array y = run_forward(layer, base_of(layer), 1.0F);
    const Array dx = run_backward_input(layer, base_of(layer), 1.0F);
    EXPECT_EQ(run_forward(layer, layer.problem, 0.0F).bytes(), y.bytes());
    EXPECT_EQ(run_backward_input(layer, layer.problem, 0.0F).bytes(), dx.bytes());
    fill(layer.A, std::numeric_limits<double>::infinity());
    fill(layer.B, std::numeric_limits<double>::infinity());
    EXPECT_EQ(run_forward(layer, layer.problem, 0.0F).bytes(), y.bytes());
    EXPECT_EQ(run_backward_input(layer, layer.problem, 0.0F).bytes(), dx.bytes());
}

TEST_P(Exactness, AnAdapterOfZerosGivesTheBaseProduct) {
    Layer layer(small(GetParam()));
    const Array y = run_forward(layer, base_of(layer), 1.0F);
    const Array dx = run_backward_input(layer, base_of(layer), 1.0F);
    fill(layer.A, 0.0);
    for (float scaling : {2.0F, -2.0F}) {  // zeros of either sign
        EXPECT_EQ(run_forward(layer, layer.problem, scaling).bytes(), y.bytes());
        EXPECT_EQ(run_backward_input(layer, layer.problem, scaling).bytes(), dx.bytes());
    }
}

TEST_P(Exactness, GroupedAndScatteredRowsAgree) {
    LayerOptions options = small(GetParam());
    options.tokens = Tokens::some_left_out;
    options.problem.y_rows = RowOrder::scattered;
    const Layer scattered(options);
    options.problem.y_rows = RowOrder::grouped;
    const Layer grouped(options);
    const Array y_scattered = run_forward(scattered, scattered.problem, 0.5F);
    const Array y_grouped = run_forward(grouped, grouped.problem, 0.5F);
    for (std::int64_t i = 0; i < scattered.M(); ++i) {
        for (std::int64_t n = 0; n < options.problem.N; ++n) {
            ASSERT_EQ(y_grouped.at(i, n), y_scattered.at(scattered.sorted_scattered_idxs.integer(i), n));
        }
    }
}

TEST_P(Exactness, AnExpertWithoutRowsHasGradientsOfExactlyZero) {
    LayerOptions options = small(GetParam());
    options.tokens = Tokens::few_experts;  // 0 and 3 of 4
    const Layer layer(options);
    util::ThreadPool threads(2);
    const Step step = run_step(layer, threads);
    for (std::int64_t e : {1, 2}) {
        for (std::int64_t r = 0; r < options.problem.R; ++r) {
            for (std::int64_t k = 0; k < options.problem.K; ++k) ASSERT_EQ(step.dA.at(e, r, k), 0.0);
            for (std::int64_t n = 0; n < options.problem.N; ++n) ASSERT_EQ(step.dB.at(e, n, r), 0.0);
        }
    }
}

TEST_P(Exactness, RowsOfEntriesLeftOutAreExactlyZero) {
    for (RowOrder order : {RowOrder::scattered, RowOrder::grouped}) {
        LayerOptions options = small(GetParam());
        options.tokens = Tokens::some_left_out;
        options.problem.x_rows = order;
        options.problem.y_rows = order;
        const Layer layer(options);
        util::ThreadPool threads(2);
        const Step step = run_step(layer, threads);
        const std::int64_t routed = layer.expert_offsets.integer(options.problem.E - 1);
        ASSERT_LT(routed, layer.M());
        for (std::int64_t i = routed; i < layer.M(); ++i) {
            const std::int64_t row = order == RowOrder::grouped ? i : layer.sorted_scattered_idxs.integer(i);
            for (std::int64_t n = 0; n < options.problem.N; ++n) ASSERT_EQ(step.y.at(row, n), 0.0);
            for (std::int64_t k = 0; k < options.problem.K; ++k) ASSERT_EQ(step.dx.at(row, k), 0.0);
            for (std::int64_t r = 0; r < options.problem.R; ++r) {
                ASSERT_EQ(step.xa.at(i, r), 0.0);
                ASSERT_EQ(step.yb.at(i, r), 0.0);
            }
        }
    }
}

TEST_P(Exactness, DgatesDoNotDependOnTheGates) {
    LayerOptions options = small(GetParam());
    options.problem.y_rows = RowOrder::token;
    options.problem.gates = true;
    options.tokens = Tokens::some_left_out;
    Layer layer(options);
    util::ThreadPool threads(2);
    const Step step = run_step(layer, threads);
    for (std::int64_t t = 0; t < options.T; ++t) {
        for (std::int64_t j = 0; j < options.problem.top_k; ++j) layer.gates.set(0.0, t, j);
    }
    const Step without = run_step(layer, threads);
    EXPECT_EQ(without.dgates.bytes(), step.dgates.bytes());
    for (double value : without.dx.values()) ASSERT_EQ(value, 0.0);
    for (double value : without.y.values()) ASSERT_EQ(value, 0.0);
    for (std::int64_t f = 0; f < layer.M(); ++f) {
        const std::int64_t t = f / options.problem.top_k;
        const std::int64_t j = f % options.problem.top_k;
        const bool left_out = layer.top_idx.integer(t, j) < 0;
        ASSERT_EQ(step.dgates.at(t, j) == 0.0, left_out);
    }
}

TEST_P(Exactness, CallersCanShareAPool) {
    const Layer layer(small(GetParam()));
    util::ThreadPool shared(3);
    const Step expected = run_step(layer, shared);
    std::vector<Step> steps(4);
    std::vector<std::thread> callers;
    for (Step& step : steps) callers.emplace_back([&] { step = run_step(layer, shared); });
    for (std::thread& caller : callers) caller.join();
    for (const Step& step : steps) EXPECT_TRUE(step == expected);
}

INSTANTIATE_TEST_SUITE_P(Types, Exactness, testing::Values(DType::bf16, DType::fp16, DType::fp32, DType::fp64),
                         [](const auto& tested) { return std::string(name(tested.param)); });

/// One input and one output of weight 1: a token's output is the sum of its gates.
double sum_of_gates(DType dtype, std::initializer_list<double> gates) {
    LayerOptions options;
    options.problem.E = 2;
    options.problem.K = 1;
    options.problem.N = 1;
    options.problem.top_k = static_cast<std::int64_t>(gates.size());
    options.problem.dtype = dtype;
    options.problem.adapter_dtype = dtype;
    options.problem.y_rows = RowOrder::token;
    options.problem.gates = true;
    options.T = 1;
    Layer layer(options);
    layer.x.set(1.0, 0);
    fill(layer.W, 1.0);
    std::int64_t j = 0;
    for (double gate : gates) layer.gates.set(gate, 0, j++);
    return run_forward(layer, layer.problem, 1.0F).at(0);
}

TEST(TokenRows, AreAddedUpInTheOrderOfTheChoices) {
    EXPECT_EQ(sum_of_gates(DType::fp32, {1e9, 1.0, -1e9}), 0.0);
    EXPECT_EQ(sum_of_gates(DType::fp32, {1e9, -1e9, 1.0}), 1.0);
}

TEST(TokenRows, AreRoundedOnceAfterTheSum) {
    // Each of the small ones alone would be lost on 1 in bf16.
    EXPECT_EQ(sum_of_gates(DType::bf16, {1.0, 0x1p-8, 0x1p-8}), 1.0 + 0x1p-7);
}

}  // namespace
}  // namespace smlora::test
