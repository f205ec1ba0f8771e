// activation and activation_backward against the formulas in fp64, on every case's rows.
#include "workload/activation.hpp"
#include "operations/cases.hpp"
#include "support/comparison.hpp"
#include "support/projection.hpp"

#include <smlora/activation.hpp>
#include <smlora/memory.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace smlora::test {
namespace {

constexpr std::int64_t row_widths[] = {1, 53, 128, 1000};
constexpr Activation kinds[] = {Activation::swiglu, Activation::geglu, Activation::geglu_tanh, Activation::reglu,
                                Activation::swiglu_clamped};

// Small, so that the clamp cuts some of the values that are drawn and leaves most.
constexpr float limit = 1.25F;
constexpr float alpha = 1.5F;

constexpr Clamp clamp{static_cast<double>(alpha), static_cast<double>(limit)};

/// Where rounding cannot take a value across a kink, at which a gradient jumps.
double off_kinks(double value) {
    for (const double kink : {0.0, -clamp.limit, clamp.limit}) {
        if (std::abs(value - kink) < 0.03) return value + 0.1;
    }
    return value;
}

class GatedActivation : public OnCases {
 protected:
    [[nodiscard]] Array random_rows(const Projection& p, RowOrder order, std::int64_t width, const char* what) const {
        Array rows = p.rows_of(order, width);
        const Random random = fresh(fmt::format("{}{}", what, width));
        rows.fill([&](std::int64_t i) { return off_kinks(1.5 * random.normal(static_cast<std::uint64_t>(i))); });
        return rows;
    }

    void expect_right(Activation kind, GateLayout layout, std::int64_t width) {
        const Projection p(engine(), test_case());
        const Array h = random_rows(p, RowOrder::scattered, 2 * width, "h");
        const Array da = random_rows(p, RowOrder::scattered, width, "da");
        Array a = p.rows_of(RowOrder::scattered, width);
        Array again = p.rows_of(RowOrder::scattered, width);
        Array dh = p.rows_of(RowOrder::scattered, 2 * width);
        ActivationArgs args{h.view(), a.view(), kind, layout, alpha, limit};
        activation(engine(), {}, p.problem, args);
        ActivationBackwardArgs backward{h.view(), da.view(), dh.view(), again.view(), kind, layout, alpha, limit};
        activation_backward(engine(), {}, p.problem, backward);
        synchronize(engine(), {});
        for (Array* output : {&a, &again, &dh}) {
            output->download();
            EXPECT_TRUE(output->untouched_outside());
        }
        Comparison of_a, of_dh;
        for (std::int64_t row = 0; row < p.M; ++row) {
            EXPECT_TRUE(again.same_row(row, a, row)) << "row " << row;
            const ActivatedRow expected = activate_row(kind, layout, h.row(row), da.row(row), clamp);
            of_a.add_group(a.row(row), expected.a);
            of_dh.add_group(dh.row(row), expected.dh);
        }
        EXPECT_TRUE(of_a.within(tolerance_of(p.problem.dtype)));
        EXPECT_TRUE(of_dh.within(tolerance_of(p.problem.dtype)));
    }
};

TEST_P(GatedActivation, ValuesAndGradientsOfEveryKind) {
    for (const Activation kind : kinds) {
        for (const GateLayout layout : {GateLayout::halves, GateLayout::interleaved}) {
            for (const std::int64_t width : row_widths) {
                SCOPED_TRACE(fmt::format("{} {} {}", name(kind), name(layout), width));
                expect_right(kind, layout, width);
            }
        }
    }
}

TEST_P(GatedActivation, GradientAloneIsTheSame) {
    const Projection p(engine(), test_case());
    const Array h = random_rows(p, RowOrder::scattered, 96, "h");
    const Array da = random_rows(p, RowOrder::scattered, 48, "da");
    Array a = p.rows_of(RowOrder::scattered, 48);
    Array with_a = p.rows_of(RowOrder::scattered, 96);
    Array alone = p.rows_of(RowOrder::scattered, 96);
    ActivationBackwardArgs args;
    args.h = h.view();
    args.da = da.view();
    args.dh = with_a.view();
    args.a = a.view();
    activation_backward(engine(), {}, p.problem, args);
    args.dh = alone.view();
    args.a = {};
    activation_backward(engine(), {}, p.problem, args);
    synchronize(engine(), {});
    with_a.download();
    alone.download();
    for (std::int64_t row = 0; row < p.M; ++row) ASSERT_TRUE(alone.same_row(row, with_a, row)) << "row " << row;
}

TEST_P(GatedActivation, LargeValuesStayFinite) {
    const Projection p(engine(), test_case());
    Array h = p.rows_of(RowOrder::scattered, 64);
    // exp of these is beyond every type.
    h.fill([](std::int64_t i) { return i % 2 == 0 ? 3000.0 : -3000.0; });
    const Array da = random_rows(p, RowOrder::scattered, 32, "da");
    Array a = p.rows_of(RowOrder::scattered, 32);
    Array dh = p.rows_of(RowOrder::scattered, 64);
    for (const Activation kind : {Activation::swiglu, Activation::geglu, Activation::geglu_tanh}) {
        activation_backward(engine(), {}, p.problem, {h.view(), da.view(), dh.view(), a.view(), kind});
        synchronize(engine(), {});
        dh.download();
        for (std::int64_t row = 0; row < p.M; ++row) {
            for (const double value : dh.row(row)) ASSERT_TRUE(std::isfinite(value)) << name(kind);
        }
    }
}

/// In a gate in even rows, in the value beside it in odd ones: clamps must not make a number of it.
TEST_P(GatedActivation, NaNStaysNaN) {
    constexpr std::int64_t width = 32, column = 3;
    const Projection p(engine(), test_case());
    Array h = p.rows_of(RowOrder::scattered, 2 * width);
    h.fill([](std::int64_t i) {
        const bool odd = i / (2 * width) % 2 == 1;
        return i % (2 * width) == (odd ? width + column : column) ? std::nan("") : 0.5;
    });
    const Array da = random_rows(p, RowOrder::scattered, width, "da");
    for (const Activation kind : kinds) {
        Array a = p.rows_of(RowOrder::scattered, width);
        Array again = p.rows_of(RowOrder::scattered, width);
        Array dh = p.rows_of(RowOrder::scattered, 2 * width);
        activation(engine(), {}, p.problem, {h.view(), a.view(), kind});
        activation_backward(engine(), {}, p.problem, {h.view(), da.view(), dh.view(), again.view(), kind});
        synchronize(engine(), {});
        for (Array* output : {&a, &again, &dh}) output->download();
        for (std::int64_t row = 0; row < p.M; ++row) {
            for (std::int64_t c = 0; c < width; ++c) {
                SCOPED_TRACE(fmt::format("{} row {} column {}", name(kind), row, c));
                const auto at = [&](const Array& rows, std::int64_t i) {
                    return rows.row(row)[static_cast<std::size_t>(i)];
                };
                ASSERT_EQ(std::isnan(at(a, c)), c == column);
                ASSERT_EQ(std::isnan(at(again, c)), c == column);
                ASSERT_EQ(std::isnan(at(dh, c)) || std::isnan(at(dh, width + c)), c == column);
            }
        }
    }
}

/// Grouped rows, whose gates are applied to the gradient and have one of their own.
class ActivationGates : public GatedActivation {
 protected:
    void expect_right(Activation kind, GateLayout layout, std::int64_t width, bool writes_a) {
        const Projection p(engine(), test_case());
        const Array h = zero_where_left_out(p, random_rows(p, RowOrder::grouped, 2 * width, "h"));
        const Array da = zero_where_left_out(p, random_rows(p, RowOrder::grouped, width, "da"));
        Array a = p.rows_of(RowOrder::grouped, width);
        Array dh = p.rows_of(RowOrder::grouped, 2 * width);
        Array dgates = p.make_dgates();
        ActivationBackwardArgs args{.h = h.view(),
                                    .da = da.view(),
                                    .dh = dh.view(),
                                    .a = {},
                                    .activation = kind,
                                    .layout = layout,
                                    .alpha = alpha,
                                    .limit = limit};
        if (writes_a) args.a = a.view();
        args.gates = p.gates.view();
        args.sorted_scattered_idxs = p.routing.sorted_scattered_idxs.view();
        args.dgates = dgates.view();
        activation_backward(engine(), {}, p.problem, args);
        synchronize(engine(), {});
        for (Array* output : {&a, &dh, &dgates}) {
            output->download();
            EXPECT_TRUE(output->untouched_outside());
        }
        Comparison of_a, of_dh, of_dgates;
        Values actual, expected;
        for (std::int64_t row = 0; row < p.M; ++row) {
            const std::int64_t entry = p.host_routing.entry(row);
            const Values gradient = da.row(row);
            ActivatedRow right = activate_row(kind, layout, h.row(row), gradient, clamp);
            actual.push_back(dgates.at(entry));
            expected.push_back(std::inner_product(gradient.begin(), gradient.end(), right.a.begin(), 0.0));
            for (double& value : right.dh) value *= p.gates.at(entry);
            of_dh.add_group(dh.row(row), right.dh);
            if (writes_a) of_a.add_group(a.row(row), right.a);
            if (p.host_routing.left_out(entry)) {
                EXPECT_EQ(dgates.at(entry), 0) << "entry " << entry << " is left out";
            }
        }
        of_dgates.add_group(actual, expected);
        const double tolerance = tolerance_of(p.problem.dtype);
        EXPECT_TRUE(of_a.within(tolerance));
        EXPECT_TRUE(of_dh.within(tolerance));
        EXPECT_TRUE(of_dgates.within(std::max(tolerance, tolerance_of(p.problem.gate_dtype))));
    }

 private:
    /// As the projections leave the rows of entries that are left out.
    static Array zero_where_left_out(const Projection& p, Array rows) {
        const std::int64_t width = rows.view().shape[1];
        rows.fill([&, drawn = rows.values()](std::int64_t i) {
            return p.host_routing.left_out(p.host_routing.entry(i / width)) ? 0.0 : drawn[static_cast<std::size_t>(i)];
        });
        return rows;
    }
};

TEST_P(ActivationGates, AreAppliedAndHaveAGradient) {
    for (const Activation kind : kinds) {
        for (const std::int64_t width : row_widths) {
            SCOPED_TRACE(fmt::format("{} {}", name(kind), width));
            const bool in_turns = width % 2 == 1 || kind == Activation::swiglu_clamped;
            expect_right(kind, in_turns ? GateLayout::interleaved : GateLayout::halves, width, width % 2 == 0);
        }
    }
}

Cases gated_cases() {
    const Problem p = with_gates(with_rows(shape(8, 96, 80, 16, 3), RowOrder::grouped, RowOrder::token), DType::fp32);
    Problem bf16_gates = p;
    bf16_gates.gate_dtype = DType::bf16;
    bf16_gates.index_dtype = DType::int64;
    const auto of = [&](DType dtype) {
        Problem other = p;
        other.dtype = other.adapter_dtype = dtype;
        if (dtype == DType::fp64) other.gate_dtype = dtype;
        return other;
    };
    return {
        {.name = "fp32_gates", .problem = p, .T = 20},
        {.name = "bf16_gates", .problem = bf16_gates, .T = 20, .left_out = 0.3},
        {.name = "fp16", .problem = of(DType::fp16), .T = 20},
        {.name = "fp32", .problem = of(DType::fp32), .T = 20},
        {.name = "fp64", .problem = of(DType::fp64), .T = 20},
        {.name = "rows_apart", .problem = p, .T = 20, .row_gap = 5, .shift = 3},
        {.name = "one_token", .problem = p, .T = 1},
        {.name = "all_left_out", .problem = p, .T = 5, .left_out = 1},
        {.name = "no_token", .problem = p, .T = 0},
    };
}
SMLORA_ON_CASES(Small, ActivationGates, gated_cases());

Cases activation_cases() {
    const Problem p = shape(8, 96, 80, 16, 3);
    return {
        {.name = "bf16", .problem = p, .T = 20},
        {.name = "fp16", .problem = shape(8, 96, 80, 16, 3, DType::fp16), .T = 20},
        {.name = "fp32", .problem = shape(8, 96, 80, 16, 3, DType::fp32), .T = 20},
        {.name = "fp64", .problem = shape(8, 96, 80, 16, 3, DType::fp64), .T = 20},
        {.name = "rows_apart", .problem = p, .T = 20, .row_gap = 5, .shift = 3},
        {.name = "one_token", .problem = p, .T = 1},
        {.name = "no_token", .problem = p, .T = 0},
    };
}
SMLORA_ON_CASES(Small, GatedActivation, activation_cases());

}  // namespace
}  // namespace smlora::test
