// group, combine and combine_backward: moving rows and summing them.
#include "workload/rows.hpp"
#include "operations/cases.hpp"
#include "support/comparison.hpp"
#include "support/projection.hpp"

#include <smlora/memory.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace smlora::test {
namespace {

/// Width of the rows moved, which is the tensors' own and neither K nor N of the problem.
constexpr std::int64_t widths[] = {1, 53, 128, 1000};

class Rows : public OnCases {
 protected:
    [[nodiscard]] Array random_rows(const Projection& p, RowOrder order, std::int64_t width) const {
        Array rows = p.rows_of(order, width);
        rows.fill_normal(fresh(fmt::format("rows{}", width)));
        return rows;
    }
    [[nodiscard]] Array gates_of(const Projection& p) const {
        return random_gates(engine(), p.problem, p.T, fresh("gates"));
    }
};

class Group : public Rows {
 protected:
    void expect_grouped(RowOrder x_rows, bool gated) {
        Case c = test_case();
        c.problem = with_rows(c.problem, x_rows, RowOrder::scattered);
        const Projection p(engine(), c);
        for (const std::int64_t width : widths) {
            SCOPED_TRACE(width);
            const Array x = random_rows(p, x_rows, width);
            const Array gates = gated ? gates_of(p) : Array();
            Array out = p.rows_of(RowOrder::grouped, width);
            GroupArgs args;
            args.x = x.view();
            args.gates = gates.view();
            args.routing = p.routing.view();
            args.out = out.view();
            group(engine(), {}, p.problem, args);
            synchronize(engine(), {});
            out.download();
            EXPECT_TRUE(out.untouched_outside());
            Comparison comparison;
            for (std::int64_t i = 0; i < p.M; ++i) {
                if (!gated && i < p.host_routing.rows()) {
                    EXPECT_TRUE(out.same_row(i, x, p.row_in(x_rows, i))) << "row " << i << " is not a copy";
                }
                comparison.add_group(out.row(i), grouped_row(x, gates, p.host_routing, p.problem, i));
            }
            EXPECT_TRUE(comparison.within(tolerance_of(p.problem.dtype)));
        }
    }
};

TEST_P(Group, CopiesTheRowsOfTokens) { expect_grouped(RowOrder::token, false); }
TEST_P(Group, CopiesScatteredRows) { expect_grouped(RowOrder::scattered, false); }
TEST_P(Group, MultipliesTheRowsOfTokensByTheirGates) { expect_grouped(RowOrder::token, true); }
TEST_P(Group, MultipliesScatteredRowsByTheirGates) { expect_grouped(RowOrder::scattered, true); }

class Combine : public Rows {};

TEST_P(Combine, SumsTheRowsOfATokenTimesTheirGates) {
    const Projection p(engine(), test_case());
    for (const bool gated : {false, true}) {
        for (const std::int64_t width : widths) {
            SCOPED_TRACE(testing::Message() << width << (gated ? " with gates" : " without gates"));
            const Array y = random_rows(p, RowOrder::scattered, width);
            const Array gates = gated ? gates_of(p) : Array();
            Array out = p.rows_of(RowOrder::token, width);
            CombineArgs args;
            args.y = y.view();
            args.gates = gates.view();
            args.out = out.view();
            combine(engine(), {}, p.problem, args);
            synchronize(engine(), {});
            out.download();
            EXPECT_TRUE(out.untouched_outside());
            Comparison comparison;
            for (std::int64_t t = 0; t < p.T; ++t) {
                comparison.add_group(out.row(t), combined_row(y, gates, p.problem.top_k, t));
            }
            EXPECT_TRUE(comparison.within(tolerance_of(p.problem.dtype)));
        }
    }
}

TEST_P(Combine, GradientsAreTheGateTimesDoutAndTheirInnerProducts) {
    const Projection p(engine(), test_case());
    const std::int64_t top_k = p.problem.top_k;
    for (const std::int64_t width : widths) {
        SCOPED_TRACE(width);
        const Array y = random_rows(p, RowOrder::scattered, width);
        const Array dout = random_rows(p, RowOrder::token, width);
        const Array gates = gates_of(p);
        Array dy = p.rows_of(RowOrder::scattered, width);
        Array dgates(engine(), p.problem.gate_dtype, {{p.T, top_k}});
        CombineBackwardArgs args;
        args.dout = dout.view();
        args.y = y.view();
        args.gates = gates.view();
        args.dy = dy.view();
        args.dgates = dgates.view();
        combine_backward(engine(), {}, p.problem, args);
        synchronize(engine(), {});
        dy.download();
        dgates.download();
        EXPECT_TRUE(dy.untouched_outside());
        EXPECT_TRUE(dgates.untouched_outside());
        Comparison of_dy, of_dgates;
        Values actual, expected;
        for (std::int64_t f = 0; f < p.M; ++f) {
            actual.push_back(dgates.at(f));
            expected.push_back(combine_dgate(dout, y, top_k, f));
            of_dy.add_group(dy.row(f), combine_dy_row(dout, gates, top_k, f));
        }
        of_dgates.add_group(actual, expected);
        EXPECT_TRUE(of_dy.within(tolerance_of(p.problem.dtype)));
        EXPECT_TRUE(of_dgates.within(std::max(tolerance_of(p.problem.dtype), tolerance_of(p.problem.gate_dtype))));
    }
}

TEST_P(Combine, EachGradientCanBeHadAlone) {
    const Projection p(engine(), test_case());
    const Array y = random_rows(p, RowOrder::scattered, 53);
    const Array dout = random_rows(p, RowOrder::token, 53);
    Array dy = p.rows_of(RowOrder::scattered, 53);
    CombineBackwardArgs args;
    args.dout = dout.view();
    args.dy = dy.view();
    combine_backward(engine(), {}, p.problem, args);  // no gates: each row of dy is a copy
    Array dgates(engine(), p.problem.gate_dtype, {{p.T, p.problem.top_k}});
    args.dy = {};
    args.y = y.view();
    args.dgates = dgates.view();
    combine_backward(engine(), {}, p.problem, args);
    synchronize(engine(), {});
    dy.download();
    dgates.download();
    for (std::int64_t f = 0; f < p.M; ++f) {
        ASSERT_TRUE(dy.same_row(f, dout, f / p.problem.top_k)) << "entry " << f;
        ASSERT_FALSE(std::isnan(dgates.at(f))) << "entry " << f;
    }
}

Cases move_cases() {
    const Problem p = shape(8, 96, 80, 16, 3);
    Problem bf16_gates = p;
    bf16_gates.gate_dtype = DType::bf16;
    return {
        {.name = "bf16", .problem = p, .T = 50},
        {.name = "bf16_gates", .problem = bf16_gates, .T = 50},
        {.name = "fp16", .problem = shape(8, 96, 80, 16, 3, DType::fp16), .T = 50},
        {.name = "fp32", .problem = shape(8, 96, 80, 16, 3, DType::fp32), .T = 50},
        {.name = "fp64", .problem = shape(8, 96, 80, 16, 3, DType::fp64), .T = 50},
        {.name = "left_out", .problem = with_index(p, DType::int64), .T = 50, .left_out = 0.4},
        {.name = "all_left_out", .problem = p, .T = 50, .left_out = 2},
        {.name = "rows_apart", .problem = p, .T = 50, .row_gap = 5, .shift = 3},
        {.name = "top_1", .problem = shape(8, 96, 80, 16, 1), .T = 50},
        {.name = "top_64", .problem = shape(128, 96, 80, 16, 64), .T = 9},
        {.name = "one_token", .problem = p, .T = 1},
        {.name = "no_token", .problem = p, .T = 0},
    };
}
SMLORA_ON_CASES(Small, Group, move_cases());
SMLORA_ON_CASES(Small, Combine, move_cases());

}  // namespace
}  // namespace smlora::test
