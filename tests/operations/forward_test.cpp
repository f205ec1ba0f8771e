// y = x W_e + scaling (x A_e^T) B_e^T + b_e against the fp64 reference, over every table of cases.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

#include <smlora/error.hpp>

namespace smlora::test {
namespace {

class Forward : public OnCases {};

TEST_P(Forward, MatchesReference) {
    const Projection p(engine(), test_case());
    const ForwardRun run = run_forward(p);
    expect_y(p, run.y);
    expect_xa(p, run.xa);
}

SMLORA_ON_CASES(Small, Forward, small_cases());
SMLORA_ON_CASES(Seed, Forward, small_seed_shapes());
SMLORA_ON_CASES(SeedReal, Forward, real_seed_shapes());
SMLORA_ON_CASES(Rank, Forward, rank_cases());
SMLORA_ON_CASES(Width, Forward, width_cases());
SMLORA_ON_CASES(Routing, Forward, routing_cases());
SMLORA_ON_CASES(Tile, Forward, tile_cases());
SMLORA_ON_CASES(RowOrder, Forward, row_order_cases());
SMLORA_ON_CASES(Layout, Forward, layout_cases());
SMLORA_ON_CASES(Double, Forward, double_cases());
SMLORA_ON_CASES(Quantised, Forward, quantised_cases());
SMLORA_ON_CASES(MorePacked, Forward, more_packed_cases());

class ForwardOutput : public OnCases {};

TEST_P(ForwardOutput, HasARowForEachRoutedEntryAndTheTypeOfX) {
    Projection p(engine(), test_case());
    ForwardArgs args = p.forward_args();
    Array y(engine(), DType::bf16, {{p.T * p.problem.top_k, p.problem.N}});
    args.y = y.view();
    forward(engine(), {}, p.problem, args);
    synchronize(engine(), {});
    y.download();
    expect_written(p, y, RowOrder::scattered);

    args.y.shape[0] = p.T;
    EXPECT_THROW(forward(engine(), {}, p.problem, args), Error) << "a row for each token";
    args.y = y.view();
    args.y.shape[1] = p.problem.N - 1;
    EXPECT_THROW(forward(engine(), {}, p.problem, args), Error) << "a column short";
    args.y = y.view();
    args.y.dtype = DType::fp16;
    EXPECT_THROW(forward(engine(), {}, p.problem, args), Error) << "another type than x";
}

SMLORA_ON_CASES(Seed, ForwardOutput, small_seed_shapes());
SMLORA_ON_CASES(SeedReal, ForwardOutput, real_seed_shapes());

class ForwardWithoutXa : public OnEachBackend {};

TEST_P(ForwardWithoutXa, GivesTheSameBits) {
    const Projection p(engine(), {.problem = shape(4, 96, 80, 16, 2), .T = 50});
    const ForwardRun with_xa = run_forward(p);
    Array y = p.make_y();
    ForwardArgs args = p.forward_args();
    args.y = y.view();
    forward(engine(), {}, p.problem, args);
    synchronize(engine(), {});
    y.download();
    EXPECT_TRUE(y.same_bits(with_xa.y));
}
SMLORA_ON_EACH_BACKEND(Small, ForwardWithoutXa);

class Base : public OnCases {};

TEST_P(Base, MatchesReference) {
    Projection p(engine(), test_case());
    const Array y = run_base(p);
    p.problem.R = 0;  // the reference of the base product
    expect_y(p, y);
}

TEST_P(Base, IsForwardOfRankZero) {
    Projection p(engine(), test_case());
    const Array y = run_base(p);
    p.problem.R = 0;
    p.A = {};
    p.B = {};
    EXPECT_TRUE(run_forward(p).y.same_bits(y));
}

SMLORA_ON_CASES(Small, Base, small_cases());
SMLORA_ON_CASES(Width, Base, width_cases());
SMLORA_ON_CASES(RowOrder, Base, row_order_cases());
SMLORA_ON_CASES(Quantised, Base, quantised_cases());

}  // namespace
}  // namespace smlora::test
