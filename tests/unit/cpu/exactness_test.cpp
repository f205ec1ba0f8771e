// What must hold to the last bit.
#include "cpu/operations.hpp"
#include "support/case.hpp"
#include "workload/projection.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <thread>
#include <vector>

namespace smlora::test {
namespace {

/// More than one tile in every direction.
Case large(DType dtype) {
    Case c{.problem = shape(3, 300, 270, 11, 2, dtype), .T = 350, .choice = Choice::any, .left_out = 0.3};
    c.problem.y_rows = RowOrder::token;
    c.problem.gates = true;
    c.problem.bias = true;
    return c;
}

Case small(DType dtype) {
    return {.problem = shape(4, 96, 53, 5, 2, dtype), .T = 30, .choice = Choice::any, .scaling = 0.75F};
}

workload::Projection projection(const Case& c) { return {engine_of(Backend::cpu), c, draws_of(1)}; }

struct Step {
    Array y, xa, dx, yb, dgates, dA, dB;
    friend bool operator==(const Step& a, const Step& b) {
        return a.y.same_bits(b.y) && a.xa.same_bits(b.xa) && a.dx.same_bits(b.dx) && a.yb.same_bits(b.yb) &&
               a.dgates.same_bits(b.dgates) && a.dA.same_bits(b.dA) && a.dB.same_bits(b.dB);
    }
};

Step run_step(const workload::Projection& p, util::ThreadPool& threads) {
    Step step{p.make_y(), p.make_ranked(), p.make_dx(), p.make_ranked(), p.make_dgates(), p.make_dA(), p.make_dB()};
    ForwardArgs forward = p.forward_args();
    forward.y = step.y.view();
    forward.xa = p.ranked_view(step.xa);
    cpu::forward(threads, p.problem, forward);
    BackwardInputArgs backward = p.backward_input_args();
    backward.dx = step.dx.view();
    backward.yb = p.ranked_view(step.yb);
    if (p.problem.gates) {
        backward.dgates = step.dgates.view();
        backward.x = p.x.view();
        backward.bias = p.bias.view();
    }
    cpu::backward_input(threads, p.problem, backward);
    BackwardLoraArgs lora = p.backward_lora_args();
    lora.xa = p.ranked_view(step.xa);
    lora.yb = p.ranked_view(step.yb);
    lora.dA = step.dA.view();
    lora.dB = step.dB.view();
    cpu::backward_lora(threads, p.problem, lora);
    return step;
}

/// y and dx with the adapter at this scaling.
struct Outputs {
    Array y, dx;
    friend bool operator==(const Outputs& a, const Outputs& b) { return a.y.same_bits(b.y) && a.dx.same_bits(b.dx); }
};

Outputs run(const workload::Projection& p, const Problem& problem, float scaling) {
    util::ThreadPool threads(2);
    Outputs outputs{p.make_y(), p.make_dx()};
    ForwardArgs forward = p.forward_args();
    BackwardInputArgs backward = p.backward_input_args();
    if (problem.R == 0) forward.A = forward.B = backward.A = backward.B = {};
    forward.scaling = backward.scaling = scaling;
    forward.y = outputs.y.view();
    backward.dx = outputs.dx.view();
    cpu::forward(threads, problem, forward);
    cpu::backward_input(threads, problem, backward);
    return outputs;
}
Outputs run_base(const workload::Projection& p) {
    Problem base = p.problem;
    base.R = 0;
    return run(p, base, 1.0F);
}

void fill(Array& array, double value) {
    array.fill([value](std::int64_t) { return value; });
}

void expect_zero(const Values& values) {
    for (const double value : values) ASSERT_EQ(value, 0.0);
}

class Exactness : public testing::TestWithParam<DType> {};

TEST_P(Exactness, AStepHasTheSameBitsOnAnyNumberOfThreads) {
    const workload::Projection p = projection(large(GetParam()));
    util::ThreadPool one(1);
    util::ThreadPool four(4);
    const Step expected = run_step(p, one);
    EXPECT_TRUE(run_step(p, four) == expected);
    EXPECT_TRUE(run_step(p, four) == expected);
}

TEST_P(Exactness, ScalingOfZeroGivesTheBaseProductWhateverTheAdapterHolds) {
    workload::Projection p = projection(small(GetParam()));
    const Outputs base = run_base(p);
    EXPECT_TRUE(run(p, p.problem, 0.0F) == base);
    fill(p.A, std::numeric_limits<double>::infinity());
    fill(p.B, std::numeric_limits<double>::infinity());
    EXPECT_TRUE(run(p, p.problem, 0.0F) == base);
}

TEST_P(Exactness, AnAdapterOfZerosGivesTheBaseProduct) {
    workload::Projection p = projection(small(GetParam()));
    const Outputs base = run_base(p);
    fill(p.A, 0.0);
    // Zeros of either sign.
    for (const float scaling : {2.0F, -2.0F}) EXPECT_TRUE(run(p, p.problem, scaling) == base);
}

TEST_P(Exactness, GroupedAndScatteredRowsAgree) {
    Case c = small(GetParam());
    c.left_out = 0.3;
    c.problem.y_rows = RowOrder::scattered;
    const workload::Projection scattered = projection(c);
    c.problem.y_rows = RowOrder::grouped;
    const workload::Projection grouped = projection(c);
    const Array y_scattered = run(scattered, scattered.problem, 0.5F).y;
    const Array y_grouped = run(grouped, grouped.problem, 0.5F).y;
    for (std::int64_t i = 0; i < grouped.M; ++i) {
        ASSERT_TRUE(y_grouped.same_row(i, y_scattered, grouped.host_routing.entry(i))) << i;
    }
}

TEST_P(Exactness, AnExpertWithoutRowsHasGradientsOfExactlyZero) {
    Case c = small(GetParam());
    c.choice = Choice::few_experts;  // 0 and 3 of 4
    const workload::Projection p = projection(c);
    util::ThreadPool threads(2);
    const Step step = run_step(p, threads);
    for (const std::int64_t e : {1, 2}) {
        ASSERT_TRUE(p.idle(e));
        expect_zero(step.dA.read(e * p.problem.R, p.problem.R));
        expect_zero(step.dB.read(e * p.problem.N, p.problem.N));
    }
}

TEST_P(Exactness, RowsOfEntriesLeftOutAreExactlyZero) {
    for (const RowOrder order : {RowOrder::scattered, RowOrder::grouped}) {
        Case c = small(GetParam());
        c.left_out = 0.3;
        c.problem.x_rows = order;
        c.problem.y_rows = order;
        const workload::Projection p = projection(c);
        util::ThreadPool threads(2);
        const Step step = run_step(p, threads);
        ASSERT_LT(p.host_routing.rows(), p.M);
        for (std::int64_t i = p.host_routing.rows(); i < p.M; ++i) {
            expect_zero(step.y.row(p.row_in(order, i)));
            expect_zero(step.dx.row(p.row_in(order, i)));
            expect_zero(step.xa.row(i));
            expect_zero(step.yb.row(i));
        }
    }
}

TEST_P(Exactness, DgatesDoNotDependOnTheGates) {
    Case c = small(GetParam());
    c.left_out = 0.3;
    c.problem.y_rows = RowOrder::token;
    c.problem.gates = true;
    workload::Projection p = projection(c);
    util::ThreadPool threads(2);
    const Step step = run_step(p, threads);
    fill(p.gates, 0.0);
    const Step without = run_step(p, threads);
    EXPECT_TRUE(without.dgates.same_bits(step.dgates));
    expect_zero(without.dx.values());
    expect_zero(without.y.values());
    for (std::int64_t f = 0; f < p.M; ++f) ASSERT_EQ(step.dgates.at(f) == 0.0, p.host_routing.left_out(f));
}

TEST_P(Exactness, CallersCanShareAPool) {
    const workload::Projection p = projection(small(GetParam()));
    util::ThreadPool shared(3);
    const Step expected = run_step(p, shared);
    std::vector<Step> steps(4);
    std::vector<std::thread> callers;
    for (Step& step : steps) callers.emplace_back([&] { step = run_step(p, shared); });
    for (std::thread& caller : callers) caller.join();
    for (const Step& step : steps) EXPECT_TRUE(step == expected);
}

INSTANTIATE_TEST_SUITE_P(Types, Exactness, testing::Values(DType::bf16, DType::fp16, DType::fp32, DType::fp64),
                         [](const auto& tested) { return std::string(name(tested.param)); });

/// One input and one output of weight 1: a token's output is the sum of its gates.
double sum_of_gates(DType dtype, const std::vector<double>& gates) {
    Case c{.problem = shape(2, 1, 1, 0, static_cast<std::int64_t>(gates.size()), dtype), .T = 1};
    c.problem.y_rows = RowOrder::token;
    c.problem.gates = true;
    workload::Projection p = projection(c);
    fill(p.x, 1.0);
    fill(p.W, 1.0);
    p.gates.fill([&](std::int64_t j) { return gates[index(j)]; });
    return run(p, p.problem, 1.0F).y.at(0);
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
