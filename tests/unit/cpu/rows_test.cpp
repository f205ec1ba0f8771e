// group, combine and combine_backward.
#include "workload/rows.hpp"
#include "cpu/operations.hpp"
#include "support/comparison.hpp"
#include "support/projection.hpp"

#include <gtest/gtest.h>

#include <utility>

namespace smlora::test {
namespace {

constexpr std::int64_t width = 45;  // of rows that belong to no side of the projection

Case case_of(DType dtype) {
    Case c{.problem = shape(5, 8, 8, 0, 3, dtype), .T = 11, .choice = Choice::any, .left_out = 0.3, .row_gap = 2};
    c.problem.gate_dtype = dtype == DType::fp16 ? DType::fp16 : DType::fp32;
    return c;
}

class RowOperations : public testing::TestWithParam<DType> {
 protected:
    Array random_rows(RowOrder order) {
        Array array = p.rows_of(order, width);
        array.fill_normal(Random(++drawn));
        return array;
    }

    std::uint64_t drawn = 0;
    workload::Projection p{engine_of(Backend::cpu), case_of(GetParam()), draws_of(21)};
    Problem problem = p.problem;
    Array gates = random_gates(p.engine, problem, p.T, Random(22));
    util::ThreadPool threads{2};
};

TEST_P(RowOperations, GroupCopiesRowsBitForBit) {
    for (const RowOrder order : {RowOrder::token, RowOrder::scattered}) {
        problem.x_rows = order;
        const Array x = random_rows(order);
        const Array out = p.rows_of(RowOrder::grouped, width);
        cpu::group(threads, problem, {x.view(), {}, p.routing.view(), out.view(), {}});
        for (std::int64_t i = 0; i < p.M; ++i) {
            ASSERT_EQ(out.row(i), grouped_row(x, {}, p.host_routing, problem, i)) << i;
        }
        EXPECT_TRUE(out.untouched_outside());
    }
}

TEST_P(RowOperations, GroupMultipliesWithTheGate) {
    problem.x_rows = RowOrder::token;
    const Array x = random_rows(RowOrder::token);
    const Array out = p.rows_of(RowOrder::grouped, width);
    cpu::group(threads, problem, {x.view(), gates.view(), p.routing.view(), out.view(), {}});
    Comparison comparison;
    for (std::int64_t i = 0; i < p.M; ++i) {
        comparison.add_group(out.row(i), grouped_row(x, gates, p.host_routing, problem, i));
    }
    EXPECT_TRUE(comparison.within(tolerance_of(problem.dtype)));
}

TEST_P(RowOperations, CombineSumsTheRowsOfAToken) {
    const Array y = random_rows(RowOrder::scattered);
    const Array none;
    for (const Array* gated : {&none, &std::as_const(gates)}) {
        const Array out = p.rows_of(RowOrder::token, width);
        cpu::combine(threads, problem, {y.view(), gated->view(), out.view(), {}});
        Comparison comparison;
        for (std::int64_t t = 0; t < p.T; ++t) {
            comparison.add_group(out.row(t), combined_row(y, *gated, problem.top_k, t));
        }
        EXPECT_TRUE(comparison.within(tolerance_of(problem.dtype)));
        EXPECT_TRUE(out.untouched_outside());
    }
}

TEST_P(RowOperations, CombineBackwardGivesDyAndDgates) {
    const Array dout = random_rows(RowOrder::token);
    const Array y = random_rows(RowOrder::scattered);
    const Array dy = p.rows_of(RowOrder::scattered, width);
    const Array dgates = p.make_dgates();
    cpu::combine_backward(threads, problem, {dout.view(), y.view(), gates.view(), dy.view(), dgates.view(), {}});
    Comparison of_dy, of_dgates;
    Values expected_dgates;
    for (std::int64_t f = 0; f < p.M; ++f) {
        of_dy.add_group(dy.row(f), combine_dy_row(dout, gates, problem.top_k, f));
        expected_dgates.push_back(combine_dgate(dout, y, problem.top_k, f));
    }
    of_dgates.add_group(dgates.values(), expected_dgates);
    EXPECT_TRUE(of_dy.within(tolerance_of(problem.dtype)));
    EXPECT_TRUE(of_dgates.within(tolerance_of(problem.gate_dtype)));
    EXPECT_TRUE(dy.untouched_outside());

    const Array dy_alone = p.rows_of(RowOrder::scattered, width);
    cpu::combine_backward(threads, problem, {dout.view(), {}, gates.view(), dy_alone.view(), {}, {}});
    EXPECT_TRUE(dy_alone.same_bits(dy));
    const Array dgates_alone = p.make_dgates();
    cpu::combine_backward(threads, problem, {dout.view(), y.view(), {}, {}, dgates_alone.view(), {}});
    EXPECT_TRUE(dgates_alone.same_bits(dgates));
}

TEST_P(RowOperations, CombineBackwardWithoutGatesCopies) {
    const Array dout = random_rows(RowOrder::token);
    const Array dy = p.rows_of(RowOrder::scattered, width);
    cpu::combine_backward(threads, problem, {dout.view(), {}, {}, dy.view(), {}, {}});
    for (std::int64_t f = 0; f < p.M; ++f) ASSERT_TRUE(dy.same_row(f, dout, f / problem.top_k)) << f;
}

INSTANTIATE_TEST_SUITE_P(Types, RowOperations, testing::Values(DType::bf16, DType::fp16, DType::fp32, DType::fp64),
                         [](const auto& tested) { return std::string(name(tested.param)); });

}  // namespace
}  // namespace smlora::test
