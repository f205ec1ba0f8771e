// The order of rows is a matter of memory alone: the same rows give the same bits wherever they lie.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

namespace smlora::test {
namespace {

class RowOrders : public OnCases {
 protected:
    /// The same inputs as `p` for other row orders; token order is left to p, whose rows the entries of a token share.
    static Projection reordered(const Projection& p, RowOrder x_rows, RowOrder y_rows) {
        Case c = p.spec;
        c.problem = with_rows(c.problem, x_rows, y_rows);
        Projection other(p.engine, c);  // draws the same W, A, B, bias and routing: one test has one set of numbers
        copy_rows(p, p.x, p.problem.x_rows, other.x, x_rows);
        copy_rows(p, p.dy, p.problem.y_rows, other.dy, y_rows);
        return other;
    }
    /// Row in `order` of sorted position i.
    static std::int64_t row_of(const Projection& p, RowOrder order, std::int64_t i) {
        const std::int64_t f = p.host_routing.entry(i);
        return order == RowOrder::grouped ? i : order == RowOrder::scattered ? f : f / p.problem.top_k;
    }
    /// Whether the routed rows of two tensors, each in its order, have the same bits.
    static bool same_rows(const Projection& p, const Array& a, RowOrder a_order, const Array& b, RowOrder b_order) {
        for (std::int64_t i = 0; i < p.host_routing.rows(); ++i) {
            if (!a.same_row(row_of(p, a_order, i), b, row_of(p, b_order, i))) return false;
        }
        return true;
    }

 private:
    static void copy_rows(const Projection& p, const Array& from, RowOrder from_order, Array& to, RowOrder to_order) {
        Values values(index(to.numel()));
        std::vector<bool> used(index(to.rows()), false);
        for (std::int64_t i = 0; i < p.host_routing.rows(); ++i) {
            const std::int64_t target = row_of(p, to_order, i);
            from.row(row_of(p, from_order, i), values.data() + target * to.width());
            used[index(target)] = true;
        }
        to.fill([&](std::int64_t i) { return values[index(i)]; }, [&](std::int64_t r) { return !used[index(r)]; });
    }
};

TEST_P(RowOrders, OfYDoesNotChangeItsBits) {
    const Projection p(engine(), test_case());
    const Projection grouped = reordered(p, p.problem.x_rows, RowOrder::grouped);
    EXPECT_TRUE(same_rows(p, run_forward(p).y, RowOrder::scattered, run_forward(grouped).y, RowOrder::grouped));
}

TEST_P(RowOrders, OfXDoesNotChangeY) {
    const Projection p(engine(), test_case());
    const ForwardRun from_tokens = run_forward(p);
    for (const RowOrder order : {RowOrder::scattered, RowOrder::grouped}) {
        const ForwardRun run = run_forward(reordered(p, order, p.problem.y_rows));
        EXPECT_TRUE(same_rows(p, from_tokens.y, RowOrder::scattered, run.y, RowOrder::scattered)) << name(order);
        EXPECT_TRUE(same_rows(p, from_tokens.xa, RowOrder::grouped, run.xa, RowOrder::grouped)) << name(order);
    }
}

TEST_P(RowOrders, OfDxAndDyDoesNotChangeTheUnreducedDx) {
    const Projection tokens(engine(), test_case());
    const Projection p = reordered(tokens, RowOrder::scattered, RowOrder::scattered);
    const BackwardInputRun scattered = run_backward_input(p);
    for (const auto& [x_rows, y_rows] :
         {std::pair(RowOrder::grouped, RowOrder::scattered), std::pair(RowOrder::scattered, RowOrder::grouped),
          std::pair(RowOrder::grouped, RowOrder::grouped)}) {
        const BackwardInputRun run = run_backward_input(reordered(p, x_rows, y_rows));
        EXPECT_TRUE(same_rows(p, scattered.dx, RowOrder::scattered, run.dx, x_rows)) << name(x_rows) << name(y_rows);
        EXPECT_TRUE(same_rows(p, scattered.yb, RowOrder::grouped, run.yb, RowOrder::grouped));
    }
}

TEST_P(RowOrders, DoesNotChangeTheAdaptersGradients) {
    const Projection p(engine(), test_case());
    const BackwardLoraRun from_tokens = run_backward_lora(p);
    for (const auto& [x_rows, y_rows] :
         {std::pair(RowOrder::scattered, RowOrder::scattered), std::pair(RowOrder::grouped, RowOrder::scattered),
          std::pair(RowOrder::grouped, RowOrder::grouped)}) {
        const BackwardLoraRun run = run_backward_lora(reordered(p, x_rows, y_rows));
        EXPECT_TRUE(run.dA.same_bits(from_tokens.dA)) << name(x_rows) << name(y_rows);
        EXPECT_TRUE(run.dB.same_bits(from_tokens.dB)) << name(x_rows) << name(y_rows);
    }
}

TEST_P(RowOrders, SummedOverATokenIsTheSumOfItsRows) {
    const Projection p(engine(), test_case());
    const Projection summed = reordered(p, RowOrder::token, RowOrder::scattered);
    const Projection apart = reordered(p, RowOrder::scattered, RowOrder::scattered);
    const Array dx = run_backward_input(summed).dx;
    const Array rows = run_backward_input(apart).dx;
    Comparison comparison;
    for (std::int64_t t = 0; t < p.T; ++t) {
        Values sum(index(p.problem.K));
        for (std::int64_t j = 0; j < p.problem.top_k; ++j) {
            const Values row = rows.row(t * p.problem.top_k + j);
            for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += row[k];
        }
        comparison.add_group(dx.row(t), sum);
    }
    EXPECT_TRUE(comparison.within(tolerance(p, dx)));
}

Cases order_cases() {
    return {
        {.name = "bf16", .problem = shape(8, 96, 80, 16, 2), .T = 60, .left_out = 0.1},
        {.name = "fp16", .problem = shape(8, 96, 80, 16, 2, DType::fp16), .T = 60, .left_out = 0.1},
        {.name = "fp32", .problem = shape(8, 96, 80, 16, 2, DType::fp32), .T = 60, .left_out = 0.1},
        {.name = "odd", .problem = shape(8, 37, 53, 5, 2), .T = 60},
        {.name = "enk", .problem = with(shape(8, 96, 80, 16, 2), WeightLayout::enk), .T = 60},
    };
}
SMLORA_ON_CASES(Small, RowOrders, order_cases());

}  // namespace
}  // namespace smlora::test
