// What the adapter adds to the base product: nothing when it is zero, and the same whether it is computed with the base
// product or apart from it.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

namespace smlora::test {
namespace {

/// Problems whose forward and dX are compared with the base product bit for bit.
Cases base_cases() {
    using enum RowOrder;
    const Problem plain = shape(16, 64, 32, 4, 2);
    const Problem summed = with_bias(with_gates(with_rows(shape(8, 96, 80, 16, 2), token, token), DType::fp32));
    return {
        {.name = "plain", .problem = plain, .T = 32},
        {.name = "fp16", .problem = shape(16, 64, 32, 4, 2, DType::fp16), .T = 32},
        {.name = "fp32", .problem = shape(16, 64, 32, 4, 2, DType::fp32), .T = 32},
        {.name = "fp32_adapter", .problem = with_adapter(shape(8, 96, 80, 16, 2), DType::fp32), .T = 32},
        {.name = "enk", .problem = with(shape(8, 96, 80, 64, 2), WeightLayout::enk), .T = 32},
        {.name = "odd", .problem = shape(8, 37, 53, 5, 2), .T = 32},
        {.name = "summed", .problem = summed, .T = 32, .left_out = 0.2},
        {.name = "many_rows", .problem = shape(2, 512, 256, 16, 2), .T = 300},
    };
}

class WithoutAdapter : public OnCases {
 protected:
    static void zero(Array& array) {
        array.fill([](std::int64_t) { return 0.0; });
    }
    /// dX of the base product: rank 0.
    static Array base_dx(const Projection& p) {
        Problem problem = p.problem;
        problem.R = 0;
        Array dx = p.make_dx();
        BackwardInputArgs args = p.backward_input_args();
        args.A = {};
        args.B = {};
        args.dx = dx.view();
        backward_input(p.engine, {}, problem, args);
        synchronize(p.engine, {});
        dx.download();
        return dx;
    }
};

TEST_P(WithoutAdapter, ScalingZeroGivesTheBaseProductBitForBit) {
    Case c = test_case();
    c.scaling = 0;
    const Projection p(engine(), c);
    EXPECT_TRUE(run_forward(p).y.same_bits(run_base(p)));
    EXPECT_TRUE(run_backward_input(p).dx.same_bits(base_dx(p)));
}

TEST_P(WithoutAdapter, AOfZeroGivesTheBaseProductBitForBit) {
    Projection p(engine(), test_case());
    zero(p.A);
    EXPECT_TRUE(run_forward(p).y.same_bits(run_base(p)));
    EXPECT_TRUE(run_backward_input(p).dx.same_bits(base_dx(p)));
}

TEST_P(WithoutAdapter, ScalingZeroGivesGradientsOfZero) {
    Case c = test_case();
    c.scaling = 0;
    const Projection p(engine(), c);
    const BackwardLoraRun run = run_backward_lora(p);
    for (const Array* gradient : {&run.dA, &run.dB}) {
        std::int64_t nonzero = 0;
        for (std::int64_t i = 0; i < gradient->numel(); ++i) nonzero += gradient->at(i) != 0 ? 1 : 0;
        EXPECT_EQ(nonzero, 0);
    }
}

SMLORA_ON_CASES(Small, WithoutAdapter, base_cases());

/// The seed's shape for this: few experts, large matrices.
Cases split_cases() {
    const Problem p = shape(8, 512, 1024, 16, 2);
    return {
        {.name = "bf16", .problem = p, .T = 128},
        {.name = "enk", .problem = with(p, WeightLayout::enk), .T = 128},
        {.name = "fp16", .problem = shape(8, 512, 1024, 16, 2, DType::fp16), .T = 128},
        {.name = "fp32", .problem = shape(8, 512, 1024, 16, 2, DType::fp32), .T = 128},
    };
}

Values all_of(const Array& array) {
    Values values;
    for (std::int64_t r = 0; r < array.rows(); ++r) {
        const Values row = array.row(r);
        values.insert(values.end(), row.begin(), row.end());
    }
    return values;
}

class Split : public OnCases {};

TEST_P(Split, ForwardIsBaseProductPlusAdapter) {
    Projection p(engine(), test_case());
    const Values fused = all_of(run_forward(p).y);
    Values split = all_of(run_base(p));
    p.W.fill([](std::int64_t) { return 0.0; });
    const Values adapter = all_of(run_forward(p).y);
    for (std::size_t i = 0; i < split.size(); ++i) split[i] += adapter[i];
    EXPECT_LE(norm_error(fused, split), tolerance_of(p.problem.dtype));
    EXPECT_GT(norm_error(all_of(run_base(p)), adapter), 0.5) << "the adapter adds nothing";
}

TEST_P(Split, GradientsWithXaAndYbGivenAreThoseComputedAgain) {
    const Projection p(engine(), test_case());
    const BackwardLoraRun kept = run_step(p).backward_lora;
    const BackwardLoraRun recomputed = run_backward_lora(p);
    EXPECT_LE(norm_error(all_of(kept.dA), all_of(recomputed.dA)), tolerance_of(p.problem.dtype));
    EXPECT_LE(norm_error(all_of(kept.dB), all_of(recomputed.dB)), tolerance_of(p.problem.dtype));
}

SMLORA_ON_CASES(Seed, Split, split_cases());

}  // namespace
}  // namespace smlora::test
