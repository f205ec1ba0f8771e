// dA = scaling (dY_e B_e)^T X_e and dB = scaling dY_e^T (X_e A_e^T) against the fp64 reference.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

namespace smlora::test {
namespace {

class BackwardLora : public OnCases {};

TEST_P(BackwardLora, MatchesReferenceWithoutXaAndYb) {
    const Projection p(engine(), test_case());
    const BackwardLoraRun run = run_backward_lora(p);
    expect_dA(p, run.dA);
    expect_dB(p, run.dB);
}

TEST_P(BackwardLora, MatchesReferenceWithXaAndYb) {
    const Projection p(engine(), test_case());
    const StepRun run = run_step(p);
    expect_dA(p, run.backward_lora.dA);
    expect_dB(p, run.backward_lora.dB);
}

SMLORA_ON_CASES(Small, BackwardLora, small_cases());
SMLORA_ON_CASES(Seed, BackwardLora, small_seed_shapes());
SMLORA_ON_CASES(Rank, BackwardLora, rank_cases());
SMLORA_ON_CASES(Width, BackwardLora, width_cases());
SMLORA_ON_CASES(Routing, BackwardLora, routing_cases());
SMLORA_ON_CASES(Tile, BackwardLora, tile_cases());
SMLORA_ON_CASES(ManyTokens, BackwardLora, many_token_cases());
SMLORA_ON_CASES(RowOrder, BackwardLora, row_order_cases());
SMLORA_ON_CASES(Layout, BackwardLora, layout_cases());
SMLORA_ON_CASES(Double, BackwardLora, double_cases());

/// The seed's group_bwd_lora: x and dy in expert order, nothing kept from before.
class BackwardLoraGrouped : public OnCases {};

TEST_P(BackwardLoraGrouped, MatchesReference) {
    const Projection p(engine(), test_case());
    const BackwardLoraRun run = run_backward_lora(p);
    expect_dA(p, run.dA);
    expect_dB(p, run.dB);
}

Cases grouped(Cases cases) {
    for (Case& c : cases) {
        c.problem = with_rows(c.problem, RowOrder::grouped, RowOrder::grouped);
        c.weight = false;
    }
    return cases;
}
SMLORA_ON_CASES(Seed, BackwardLoraGrouped, grouped(small_seed_shapes()));
SMLORA_ON_CASES(SeedReal, BackwardLoraGrouped, grouped(real_seed_shapes()));

class ExpertWithoutRows : public OnEachBackend {};

TEST_P(ExpertWithoutRows, GetsAGradientOfExactlyZero) {
    Case c{.problem = with_rows(shape(8, 64, 32, 4, 1), RowOrder::grouped, RowOrder::grouped), .T = 16};
    c.choice = Choice::one_expert;
    const Projection p(engine(), c);
    const BackwardLoraRun run = run_backward_lora(p);
    for (std::int64_t e = 0; e < 7; ++e) {
        for (std::int64_t i = 0; i < 4 * 64; ++i) ASSERT_EQ(run.dA.at(e * 4 * 64 + i), 0) << "expert " << e;
        for (std::int64_t i = 0; i < 32 * 4; ++i) ASSERT_EQ(run.dB.at(e * 32 * 4 + i), 0) << "expert " << e;
    }
    expect_dA(p, run.dA);
    expect_dB(p, run.dB);
}
SMLORA_ON_EACH_BACKEND(Small, ExpertWithoutRows);

class OneGradientAlone : public OnEachBackend {
 protected:
    [[nodiscard]] Projection projection() const { return {engine(), {.problem = shape(4, 96, 80, 16, 2), .T = 50}}; }
};

TEST_P(OneGradientAlone, DaNeedsNoAdapterA) {
    const Projection p = projection();
    const BackwardLoraRun both = run_backward_lora(p);
    Array dA = p.make_dA();
    BackwardLoraArgs args = p.backward_lora_args();
    args.A = {};
    args.dA = dA.view();
    backward_lora(engine(), {}, p.problem, args);
    synchronize(engine(), {});
    dA.download();
    EXPECT_TRUE(dA.same_bits(both.dA));
}

TEST_P(OneGradientAlone, DbNeedsNoAdapterB) {
    const Projection p = projection();
    const BackwardLoraRun both = run_backward_lora(p);
    Array dB = p.make_dB();
    BackwardLoraArgs args = p.backward_lora_args();
    args.B = {};
    args.dB = dB.view();
    backward_lora(engine(), {}, p.problem, args);
    synchronize(engine(), {});
    dB.download();
    EXPECT_TRUE(dB.same_bits(both.dB));
}

TEST_P(OneGradientAlone, NeedsNoAdapterAtAllWithXaAndYb) {
    const Projection p = projection();
    const StepRun step = run_step(p);
    BackwardLoraArgs args = p.backward_lora_args();
    args.A = {};
    args.B = {};
    args.xa = p.ranked_view(step.forward.xa);
    args.yb = p.ranked_view(step.backward_input.yb);
    const BackwardLoraRun run = run_backward_lora(p, args);
    EXPECT_TRUE(run.dA.same_bits(step.backward_lora.dA));
    EXPECT_TRUE(run.dB.same_bits(step.backward_lora.dB));
}
SMLORA_ON_EACH_BACKEND(Small, OneGradientAlone);

}  // namespace
}  // namespace smlora::test
