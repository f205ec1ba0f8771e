// dx = dy W_e^T + scaling (dy B_e) A_e, yb and the gradient of the gates against the fp64 reference.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

namespace smlora::test {
namespace {

class BackwardInput : public OnCases {};

TEST_P(BackwardInput, MatchesReference) {
    const Projection p(engine(), test_case());
    const BackwardInputRun run = run_backward_input(p);
    expect_dx(p, run.dx);
    expect_yb(p, run.yb);
    if (p.problem.gates) expect_dgates(p, run.dgates);
}

SMLORA_ON_CASES(Small, BackwardInput, small_cases());
SMLORA_ON_CASES(Seed, BackwardInput, small_seed_shapes());
SMLORA_ON_CASES(Rank, BackwardInput, rank_cases());
SMLORA_ON_CASES(Width, BackwardInput, width_cases());
SMLORA_ON_CASES(Routing, BackwardInput, routing_cases());
SMLORA_ON_CASES(Tile, BackwardInput, tile_cases());
SMLORA_ON_CASES(RowOrder, BackwardInput, row_order_cases());
SMLORA_ON_CASES(Layout, BackwardInput, layout_cases());
SMLORA_ON_CASES(Double, BackwardInput, double_cases());
SMLORA_ON_CASES(Quantised, BackwardInput, quantised_cases());
SMLORA_ON_CASES(MorePacked, BackwardInput, more_packed_cases());

/// The seed's shapes with dy grouped and dx scattered, a row for each routed entry.
Cases unreduced(Cases cases) {
    for (Case& c : cases) c.problem = with_rows(c.problem, RowOrder::scattered, RowOrder::grouped);
    return cases;
}
SMLORA_ON_CASES(SeedUnreduced, BackwardInput, unreduced(small_seed_shapes()));
SMLORA_ON_CASES(SeedRealUnreduced, BackwardInput, unreduced(real_seed_shapes()));

/// The reduced form, [T, K], on one real shape; the others differ in their sizes alone.
SMLORA_ON_CASES(SeedReal, BackwardInput, Cases{real_seed_shapes()[1]});

class BackwardInputOptional : public OnEachBackend {};

TEST_P(BackwardInputOptional, OutputsDoNotChangeDx) {
    Problem problem = with_bias(with_gates(shape(4, 96, 80, 16, 2), DType::fp32));
    problem.y_rows = RowOrder::token;
    const Projection p(engine(), {.problem = problem, .T = 50});
    const BackwardInputRun all = run_backward_input(p);
    Array dx = p.make_dx();
    BackwardInputArgs args = p.backward_input_args();
    args.dx = dx.view();
    backward_input(engine(), {}, p.problem, args);
    synchronize(engine(), {});
    dx.download();
    EXPECT_TRUE(dx.same_bits(all.dx));
}

TEST_P(BackwardInputOptional, DxMayBeThatBeforeTheGates) {
    for (const RowOrder x_rows : {RowOrder::grouped, RowOrder::scattered}) {
        Projection p(engine(),
                     {.problem = with_gates(with_rows(shape(4, 96, 80, 16, 2), x_rows, RowOrder::token), DType::fp32),
                      .T = 50,
                      .left_out = 0.3});
        Array dx = p.make_dx();
        BackwardInputArgs args = p.backward_input_args();
        args.gates = {};
        args.before_gates = true;
        args.dx = dx.view();
        backward_input(engine(), {}, p.problem, args);
        synchronize(engine(), {});
        dx.download();
        p.problem.gates = false;  // what is expected
        expect_dx(p, dx);
    }
}

TEST_P(BackwardInputOptional, AdapterMayBeAbsent) {
    Projection p(engine(), {.problem = shape(4, 96, 80, 0, 2), .T = 50});
    expect_dx(p, run_backward_input(p).dx);
}
SMLORA_ON_EACH_BACKEND(Small, BackwardInputOptional);

}  // namespace
}  // namespace smlora::test
