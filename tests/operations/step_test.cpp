// A whole training step, as an autograd function runs it, and the identities that bind its outputs: y is linear
// in x, in each of A and B, and in the gates, so that each gradient's product with its own argument is known.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

#include <cmath>

namespace smlora::test {
namespace {

class Step : public OnCases {};

TEST_P(Step, WithTheLibrarysOwnRoutingGivesFiniteNonzeroGradients) {
    Projection p(engine(), test_case());
    const Problem& problem = p.problem;
    const std::vector<std::int64_t> chosen =
        choose_experts(fresh("routing"), p.T, problem.top_k, problem.E, p.spec.choice, p.spec.left_out);
    Array top_idx(engine(), DType::int64, {{p.T, problem.top_k}});
    top_idx.fill([&](std::int64_t i) { return static_cast<double>(chosen[index(i)]); });
    RouteArgs route_args;
    route_args.top_idx = top_idx.view();
    for (Array* array : {&p.routing.sorted_expert_idxs, &p.routing.sorted_scattered_idxs, &p.routing.expert_offsets}) {
        array->poison();
    }
    route_args.routing = p.routing.view();
    route(engine(), {}, problem, route_args);

    p.dy.fill([](std::int64_t) { return 1.0; });  // the gradient of the sum of y
    const StepRun step = run_step(p);
    expect_y(p, step.forward.y);
    expect_dx(p, step.backward_input.dx);
    expect_dA(p, step.backward_lora.dA);
    expect_dB(p, step.backward_lora.dB);
    for (const Array* gradient : {&step.backward_input.dx, &step.backward_lora.dA, &step.backward_lora.dB}) {
        double sum = 0;
        Values row(index(gradient->width()));
        for (std::int64_t r = 0; r < gradient->rows(); ++r) {
            gradient->row(r, row.data());
            for (double value : row) sum += std::abs(value);
        }
        EXPECT_TRUE(std::isfinite(sum));
        EXPECT_GT(sum, 0);
    }
}

SMLORA_ON_CASES(Seed, Step, small_seed_shapes());
SMLORA_ON_CASES(SeedReal, Step, (Cases{real_seed_shapes()[0], real_seed_shapes()[1]}));

double inner_product(const Array& a, const Array& b) {
    double sum = 0;
    for (std::int64_t i = 0; i < a.numel(); ++i) {
        if (!std::isnan(b.at(i))) sum += a.at(i) * b.at(i);  // NaN: an expert without rows, whose gradient is zero
    }
    return sum;
}

class Identities : public OnCases {};

TEST_P(Identities, HoldBetweenOutputsAndGradients) {
    const Projection p(engine(), test_case());
    const StepRun step = run_step(p);
    const Array& y = step.forward.y;
    const double loss = inner_product(y, p.dy);
    const double base_loss = inner_product(run_base(p), p.dy);
    const double margin =
        2 * tolerance_of(p.problem.dtype) * std::sqrt(inner_product(y, y) * inner_product(p.dy, p.dy));
    EXPECT_NEAR(inner_product(step.backward_input.dx, p.x), loss, margin) << "<dx, x> is <dy, y>";
    EXPECT_NEAR(inner_product(step.backward_lora.dA, p.A), loss - base_loss, margin) << "<dA, A> is <dy, y - base>";
    EXPECT_NEAR(inner_product(step.backward_lora.dB, p.B), loss - base_loss, margin) << "<dB, B> is <dy, y - base>";
    if (p.problem.gates) {
        EXPECT_NEAR(inner_product(step.backward_input.dgates, p.gates), loss, margin) << "<dgates, gates> is <dy, y>";
    }
}

Cases identity_cases() {
    using enum RowOrder;
    const Problem p = shape(4, 64, 56, 8, 2, DType::fp32);
    return {
        {.name = "scattered", .problem = p, .T = 24},
        {.name = "grouped", .problem = with_rows(p, grouped, grouped), .T = 24},
        {.name = "summed_gates", .problem = with_gates(with_rows(p, token, token), DType::fp32), .T = 24},
        {.name = "summed_gates_from_scattered",
         .problem = with_gates(with_rows(p, scattered, token), DType::fp32),
         .T = 24},
        {.name = "odd", .problem = with_rows(shape(4, 37, 53, 5, 2, DType::fp32), token, token), .T = 24},
        {.name = "peft", .problem = with(p, WeightLayout::enk), .T = 24, .adapter = AdapterLayout::peft},
    };
}
SMLORA_ON_CASES(Small, Identities, identity_cases());

class NoTokens : public OnEachBackend {};

TEST_P(NoTokens, NeedNoMemoryAndGiveGradientsOfZero) {
    const Projection p(engine(), {.problem = shape(4, 96, 80, 16, 2), .T = 0});
    const auto null = [](Tensor tensor) {
        tensor.data = nullptr;
        return tensor;
    };
    const Routing routing{null(p.routing.sorted_expert_idxs.view()), null(p.routing.sorted_scattered_idxs.view()),
                          p.routing.expert_offsets.view()};
    ForwardArgs f = p.forward_args();
    f.x = null(f.x);
    f.routing = routing;
    f.y = null(p.make_y().view());
    forward(engine(), {}, p.problem, f);
    BackwardInputArgs b = p.backward_input_args();
    b.dy = null(b.dy);
    b.routing = routing;
    b.dx = null(p.make_dx().view());
    backward_input(engine(), {}, p.problem, b);
    BackwardLoraArgs l = p.backward_lora_args();
    l.x = null(l.x);
    l.dy = null(l.dy);
    l.routing = routing;
    const BackwardLoraRun run = run_backward_lora(p, l);
    expect_dA(p, run.dA);
    expect_dB(p, run.dB);
}
SMLORA_ON_EACH_BACKEND(Small, NoTokens);

}  // namespace
}  // namespace smlora::test
