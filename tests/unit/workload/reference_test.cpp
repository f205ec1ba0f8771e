// The reference that everything is compared with, against results worked out by hand.
#include "workload/reference.hpp"
#include "support/backend.hpp"
#include "workload/activation.hpp"
#include "workload/rows.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace smlora::test {
namespace {

TEST(HostRouting, SortsStablyAndPutsEntriesLeftOutLast) {
    const HostRouting routing({2, 0, -1, 2, 0, 1}, 4);
    EXPECT_EQ(routing.sorted_scattered_idxs, (std::vector<std::int64_t>{1, 4, 5, 0, 3, 2}));
    EXPECT_EQ(routing.sorted_expert_idxs, (std::vector<std::int64_t>{0, 0, 1, 2, 2, 4}));
    EXPECT_EQ(routing.expert_offsets, (std::vector<std::int64_t>{2, 3, 5, 5}));
    EXPECT_EQ(routing.position, (std::vector<std::int64_t>{3, 0, 5, 4, 1, 2}));
}

TEST(ChooseExperts, ExpertsOfATokenAreDistinctWhereThatIsPossible) {
    const auto top_idx = choose_experts(Random(1), 500, 8, 9, Choice::distinct, 0);
    for (std::size_t t = 0; t < 500; ++t) {
        const auto first = top_idx.begin() + static_cast<std::ptrdiff_t>(8 * t);
        const std::set<std::int64_t> experts(first, first + 8);
        ASSERT_EQ(experts.size(), 8U);
        ASSERT_GE(*experts.begin(), 0);
        ASSERT_LT(*experts.rbegin(), 9);
    }
    EXPECT_EQ(choose_experts(Random(1), 2, 2, 1, Choice::distinct, 0), std::vector<std::int64_t>(4, 0));
}

void set(Array& array, const std::vector<double>& values) {
    array.fill([&](std::int64_t i) { return values[index(i)]; });
}

/// Two tokens, both of them of expert 0 and the first of expert 1 as well; K = 2, N = 3, R = 1.
class ByHand : public testing::TestWithParam<WeightLayout> {
 protected:
    ByHand() {
        set(p.x, {1, 2, 3, 4});
        const bool ekn = GetParam() == WeightLayout::ekn;
        set(p.W, ekn ? std::vector<double>{1, 0, 2, 0, 1, 1, 5, 0, 0, 0, 0, 0}
                     : std::vector<double>{1, 0, 0, 1, 2, 1, 5, 0, 0, 0, 0, 0});
        set(p.A, {1, 1, 0, 2});
        set(p.B, {1, 2, 3, 1, 0, 0});
        set(p.bias, {10, 20, 30, 0, 0, 1});
        set(p.gates, {0.5, 2, 4, 8});
        set(p.dy, {1, 0, 1, 0, 1, 0});
    }

    static Case spec() {
        Case c{.T = 2, .scaling = 2};
        c.problem = {.E = 2,
                     .K = 2,
                     .N = 3,
                     .R = 1,
                     .top_k = 2,
                     .dtype = DType::fp64,
                     .adapter_dtype = DType::fp64,
                     .gate_dtype = DType::fp64,
                     .weight_layout = GetParam(),
                     .x_rows = RowOrder::token,
                     .y_rows = RowOrder::token,
                     .bias = true,
                     .gates = true};
        return c;
    }

    // Sorted: position 0 is entry 0 (token 0, expert 0), 1 is entry 2 (token 1, expert 0), 2 is entry 1 (expert 1).
    workload::Projection p{engine_of(Backend::cpu), spec(), draws_of(0), {0, 1, 0, -1}};
    Reference reference{p};
};

TEST_P(ByHand, Forward) {
    EXPECT_EQ(reference.xa(0), (Values{6}));                   // 2 * (1 + 2)
    EXPECT_EQ(reference.base(0), (Values{11, 22, 34}));        // {1, 2, 4} + bias
    EXPECT_EQ(reference.y(0), (Values{17, 34, 52}));           // + 6 * {1, 2, 3}
    EXPECT_EQ(reference.xa(2), (Values{8}));                   // 2 * 4
    EXPECT_EQ(reference.y(2), (Values{13, 0, 1}));             // {5, 0, 0} + 8 * {1, 0, 0} + bias
    EXPECT_EQ(reference.y_output(0), (Values{34.5, 17, 28}));  // 0.5 * y(0) + 2 * y(2)
    EXPECT_EQ(reference.xa(1), (Values{14}));
    EXPECT_EQ(reference.y_output(1), (Values{108, 208, 328}));  // 4 * ({3, 4, 10} + bias + 14 * {1, 2, 3})
}

TEST_P(ByHand, BackwardInput) {
    EXPECT_EQ(reference.yb(0), (Values{8}));      // 2 * (1 + 3)
    EXPECT_EQ(reference.dx(0), (Values{11, 9}));  // {1 + 2, 1} + 8 * {1, 1}
    EXPECT_EQ(reference.yb(2), (Values{2}));      // 2 * 1
    EXPECT_EQ(reference.dx(2), (Values{5, 4}));   // {5, 0} + 2 * {0, 2}
    EXPECT_EQ(reference.dx_output(0), (Values{15.5, 12.5}));
    EXPECT_EQ(reference.dgate(0), 17 + 52);
    EXPECT_EQ(reference.dgate(1), 13 + 1);
    EXPECT_EQ(reference.dgate(3), 0);
}

TEST_P(ByHand, BackwardLora) {
    // Expert 0: yb is 8 and 4, x {1, 2} and {3, 4}, gates 0.5 and 4.
    EXPECT_EQ(reference.dA(0), (Values{4 + 48, 8 + 64}));
    EXPECT_EQ(reference.dB(0), (Values{3, 56, 3}));  // 0.5 * 6 * {1, 0, 1} + 4 * 14 * {0, 1, 0}
    EXPECT_EQ(reference.dA(1), (Values{4, 8}));      // 2 * 2 * {1, 2}
    EXPECT_EQ(reference.dB(1), (Values{16, 0, 16}));
}

TEST_P(ByHand, Rows) {
    EXPECT_EQ(grouped_row(p.x, p.gates, p.host_routing, p.problem, 1), (Values{12, 16}));
    EXPECT_EQ(grouped_row(p.x, {}, p.host_routing, p.problem, 3), (Values{0, 0}));
    Array y(p.engine, DType::fp64, {{4, 2}});
    set(y, {1, 2, 3, 4, 5, 6, 7, 8});
    EXPECT_EQ(combined_row(y, p.gates, 2, 0), (Values{6.5, 9}));
    EXPECT_EQ(combined_row(y, {}, 2, 1), (Values{12, 14}));
    Array dout(p.engine, DType::fp64, {{2, 2}});
    set(dout, {1, 10, 100, 1000});
    EXPECT_EQ(combine_dy_row(dout, p.gates, 2, 3), (Values{800, 8000}));
    EXPECT_EQ(combine_dgate(dout, y, 2, 3), 8700);
}

INSTANTIATE_TEST_SUITE_P(Weights, ByHand, testing::Values(WeightLayout::ekn, WeightLayout::enk),
                         [](const auto& tested) { return std::string(name(tested.param)); });

TEST(ActivationFormulas, HaveTheDerivativesThatDifferencesShow) {
    constexpr Clamp clamp{1.5, 1.25};
    constexpr double step = 1e-6;
    for (const Activation kind : {Activation::swiglu, Activation::geglu, Activation::geglu_tanh, Activation::reglu,
                                  Activation::swiglu_clamped}) {
        // Off the kinks at 0 and at the limit.
        for (const double g : {-6.0, -1.3, -0.4, 0.1, 0.9, 1.2, 1.4, 5.0}) {
            for (const double u : {-3.0, -1.2, 0.3, 1.1, 2.0}) {
                const auto value = [&](double gate, double linear) {
                    return activate(kind, gate, linear, clamp).value;
                };
                const Activated f = activate(kind, g, u, clamp);
                EXPECT_NEAR(f.by_gate, (value(g + step, u) - value(g - step, u)) / (2 * step), 1e-8) << g << ' ' << u;
                EXPECT_NEAR(f.by_value, (value(g, u + step) - value(g, u - step)) / (2 * step), 1e-8) << g << ' ' << u;
            }
        }
    }
    EXPECT_EQ(activate(Activation::reglu, 2, 3).value, 6);
    EXPECT_NEAR(activate(Activation::swiglu, 1, 2).value, 2 / (1 + std::exp(-1.0)), 1e-15);
    EXPECT_NEAR(activate(Activation::geglu, 1, 1).value, 0.841344746068543, 1e-14);
    EXPECT_NEAR(activate(Activation::geglu_tanh, 1, 1).value, 0.8411919906082768, 1e-14);
    EXPECT_NEAR(activate(Activation::swiglu_clamped, 9, -9).value, 7 / (1 + std::exp(-1.702 * 7)) * -6, 1e-6);
}

}  // namespace
}  // namespace smlora::test
