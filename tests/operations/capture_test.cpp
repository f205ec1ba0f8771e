// CUDA graphs: a step is captured and replayed on new inputs; a kernel that was never loaded is an error that leaves
// the capture alive; nothing is tuned while a stream captures.
#include "autotune/tuner.hpp"
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/gpu.hpp"
#include "support/runs.hpp"

#include "engine/cuda_call.hpp"
#include "plan/step_kernels.hpp"

#include <smlora/cache.hpp>
#include <smlora/error.hpp>

#include <atomic>
#include <string>
#include <utility>

namespace smlora::test {
namespace {

/// The outputs of a step in memory that stays where it is from capture to replay.
struct StepOutputs {
    explicit StepOutputs(const Projection& p)
        : y(p.make_y()), xa(p.make_ranked()), dx(p.make_dx()), yb(p.make_ranked()), dA(p.make_dA()), dB(p.make_dB()) {
        if (p.problem.gates) dgates = p.make_dgates();
    }
    std::vector<Array*> all() { return {&y, &xa, &dx, &yb, &dA, &dB}; }

    Array y, xa, dx, yb, dA, dB, dgates;
};

/// Scratch memory for the three operations; without it they take theirs from the pool.
struct StepWorkspaces {
    explicit StepWorkspaces(const Projection& p)
        : forward(p.engine, forward_workspace(p.engine, p.problem, p.T)),
          backward_input(p.engine, backward_input_workspace(p.engine, p.problem, p.T)),
          backward_lora(p.engine, backward_lora_workspace(p.engine, p.problem, p.T)) {}
    Buffer forward, backward_input, backward_lora;
};

void enqueue_step(const Projection& p, StepOutputs& out, const StepWorkspaces* workspaces, Stream stream) {
    ForwardArgs f = p.forward_args();
    f.y = out.y.view();
    f.xa = p.ranked_view(out.xa);
    BackwardInputArgs b = p.backward_input_args();
    b.dx = out.dx.view();
    b.yb = p.ranked_view(out.yb);
    if (p.problem.gates) {
        b.dgates = out.dgates.view();
        b.x = p.x.view();
        b.bias = p.bias.view();
    }
    BackwardLoraArgs l = p.backward_lora_args();
    l.xa = p.ranked_view(out.xa);
    l.yb = p.ranked_view(out.yb);
    l.dA = out.dA.view();
    l.dB = out.dB.view();
    if (workspaces != nullptr) {
        f.workspace = {workspaces->forward.data(), workspaces->forward.bytes()};
        b.workspace = {workspaces->backward_input.data(), workspaces->backward_input.bytes()};
        l.workspace = {workspaces->backward_lora.data(), workspaces->backward_lora.bytes()};
    }
    forward(p.engine, stream, p.problem, f);
    backward_input(p.engine, stream, p.problem, b);
    backward_lora(p.engine, stream, p.problem, l);
}

void expect_step(const Projection& p, StepOutputs& out) {
    for (Array* array : out.all()) array->download();
    expect_y(p, out.y);
    expect_xa(p, out.xa);
    expect_dx(p, out.dx);
    expect_yb(p, out.yb);
    expect_dA(p, out.dA);
    expect_dB(p, out.dB);
    if (p.problem.gates) {
        out.dgates.download();
        expect_dgates(p, out.dgates);
    }
}

/// New x and dy in the same memory.
void redraw(Projection& p) {
    const Random random = fresh("redraw");
    p.x.fill([&](std::int64_t i) { return random.normal(static_cast<std::uint64_t>(i)); });
    p.dy.fill([&](std::int64_t i) { return random.normal(~static_cast<std::uint64_t>(i)); });
}

class Capture : public OnGpu, public testing::WithParamInterface<Case> {
 protected:
    void expect_replay(bool own_workspaces) {
        const CallersContext context;
        const GpuStream stream;
        Projection p(engine(), GetParam());
        StepOutputs out(p);
        const StepWorkspaces memory(p);
        const StepWorkspaces* workspaces = own_workspaces ? &memory : nullptr;
        enqueue_step(p, out, workspaces, stream.view());
        synchronize(engine(), stream.view());

        const Graph graph(stream, [&] { enqueue_step(p, out, workspaces, stream.view()); });
        for (int replay = 0; replay < 2; ++replay) {
            if (replay > 0) redraw(p);
            for (Array* array : out.all()) array->poison();
            graph.launch(stream);
            expect_step(p, out);
        }
    }
};

TEST_P(Capture, ReplaysAStepWithTheCallersWorkspace) { expect_replay(true); }
TEST_P(Capture, ReplaysAStepWithThePool) { expect_replay(false); }

Cases capture_cases() {
    using enum RowOrder;
    const Problem p = shape(8, 96, 80, 16, 2);
    return {
        {.name = "scattered", .problem = p, .T = 60},
        {.name = "summed_gates_bias",
         .problem = with_bias(with_gates(with_rows(p, token, token), DType::fp32)),
         .T = 60},
        {.name = "odd_peft",
         .problem = with_rows(shape(8, 37, 53, 5, 2), token, token),
         .T = 60,
         .adapter = AdapterLayout::peft},
        {.name = "fp32", .problem = shape(8, 96, 80, 16, 2, DType::fp32), .T = 60},
    };
}
INSTANTIATE_TEST_SUITE_P(Small, Capture, testing::ValuesIn(capture_cases()),
                         [](const auto& case_info) { return "cuda_" + case_info.param.name; });

class CaptureOfRoute : public OnGpu {};

TEST_F(CaptureOfRoute, GroupAndCombineFollowsANewChoiceOfExperts) {
    const CallersContext context;
    const GpuStream stream;
    Projection p(engine(),
                 {.problem = with_rows(shape(8, 96, 80, 16, 2), RowOrder::token, RowOrder::scattered), .T = 500});
    Array top_idx(engine(), DType::int32, {{p.T, 2}});
    Array grouped = p.rows_of(RowOrder::grouped, 96), summed = p.rows_of(RowOrder::token, 80);
    RouteArgs route_args;
    route_args.top_idx = top_idx.view();
    route_args.routing = p.routing.view();
    GroupArgs group_args;
    group_args.x = p.x.view();
    group_args.routing = p.routing.view();
    group_args.out = grouped.view();
    CombineArgs combine_args;
    combine_args.y = p.dy.view();
    combine_args.out = summed.view();
    const auto work = [&] {
        route(engine(), stream.view(), p.problem, route_args);
        group(engine(), stream.view(), p.problem, group_args);
        combine(engine(), stream.view(), p.problem, combine_args);
    };
    const auto choose = [&](const std::string& purpose) {
        const auto chosen = choose_experts(fresh(purpose), p.T, 2, 8, Choice::distinct, 0.1);
        top_idx.fill([&](std::int64_t i) { return static_cast<double>(chosen[index(i)]); });
        return HostRouting(chosen, 8);
    };
    choose("warm up");
    work();
    synchronize(engine(), stream.view());
    const Graph graph(stream, work);
    for (const char* purpose : {"first", "second"}) {
        const HostRouting expected = choose(purpose);
        grouped.poison();
        summed.poison();
        graph.launch(stream);
        grouped.download();
        summed.download();
        for (std::int64_t i = 0; i < expected.rows(); ++i) {
            ASSERT_TRUE(grouped.same_row(i, p.x, expected.entry(i) / 2)) << purpose << " row " << i;
        }
        Comparison comparison;
        for (std::int64_t t = 0; t < p.T; ++t) {
            Values sum = p.dy.row(2 * t);
            const Values second = p.dy.row(2 * t + 1);
            for (std::size_t n = 0; n < sum.size(); ++n) sum[n] += second[n];
            comparison.add_group(summed.row(t), sum);
        }
        EXPECT_TRUE(comparison.within(tolerance_of(DType::bf16)));
    }
}

/// A step on an engine and a stream of its own.
struct FirstStep {
    explicit FirstStep(Engine made) : engine(std::move(made)) {}

    void run() {
        enqueue_step(p, out, nullptr, stream.view());
        synchronize(engine, stream.view());
    }

    const Engine engine;
    const CallersContext context;
    const GpuStream stream;
    const Projection p{engine, {.problem = shape(4, 96, 80, 16, 2), .T = 30}};
    StepOutputs out{p};
};

/// That a step in a capture is refused, as a kernel was never loaded, and the capture goes on.
void expect_not_ready(FirstStep& step) {
    const GpuStream& stream = step.stream;
    SMLORA_CAPTURE(cuStreamBeginCapture, stream.handle(), CU_STREAM_CAPTURE_MODE_GLOBAL);
    ErrorCode code = ErrorCode::internal;
    std::string message;
    try {
        enqueue_step(step.p, step.out, nullptr, stream.view());
    } catch (const Error& error) {
        code = error.code();
        message = error.what();
    }
    CUgraph graph = nullptr;
    const CUresult end = capture_functions().cuStreamEndCapture(stream.handle(), &graph);
    if (graph != nullptr) SMLORA_CAPTURE(cuGraphDestroy, graph);
    EXPECT_EQ(code, ErrorCode::not_ready) << message;
    EXPECT_NE(message.find("run the operation once"), std::string::npos) << message;
    EXPECT_EQ(end, CUDA_SUCCESS) << "the refusal broke the caller's capture";
}

void expect_capture_and_replay(FirstStep& step) {
    const Graph graph(step.stream, [&] { enqueue_step(step.p, step.out, nullptr, step.stream.view()); });
    for (Array* array : step.out.all()) array->poison();
    graph.launch(step.stream);
    expect_step(step.p, step.out);
}

class CaptureBeforeWarmUp : public OnGpu {};

TEST_F(CaptureBeforeWarmUp, IsNotReadyAndLeavesTheCaptureAlive) {
    const TemporaryFolder folder;
    FirstStep step(Engine(options_of(Backend::cuda, folder)));
    expect_not_ready(step);
    step.run();
    expect_capture_and_replay(step);
}

/// On an engine that tunes when an operation first runs, with few candidates, so that it does not take long.
class CaptureUnderFirstUse : public OnGpu {
 protected:
    [[nodiscard]] Engine first_use_engine() {
        EngineOptions options = options_of(Backend::cuda, folder);
        options.tuning = TuningPolicy::first_use;
        options.log = [this](LogLevel, std::string_view line) {
            if (line.starts_with("tuning ")) ++tunings;
        };
        Engine engine(std::move(options));
        autotune::tuner_of(engine).limit_first_use(3, 1);
        return engine;
    }
    void expect_nothing_tuned() const {
        EXPECT_EQ(tunings, 0);
        EXPECT_FALSE(std::filesystem::exists(records())) << "something was recorded";
    }
    [[nodiscard]] std::filesystem::path records() const { return folder.path() / "cache/v1/tuning"; }

    const TemporaryFolder folder;
    std::atomic<int> tunings = 0;
};

TEST_F(CaptureUnderFirstUse, TunesNothingAndNeitherDoLaterCalls) {
    FirstStep step(first_use_engine());
    // The kernels of the heuristic choices, without a call that would tune.
    engine::CudaCall call(step.engine, step.stream.view());
    for (const plan::Request& request : plan::step_requests(step.p.problem, step.p.T)) {
        plan::Plan plan = plan::make_plan(step.p.problem, request, call.facts());
        call.load(plan);
    }

    expect_capture_and_replay(step);
    expect_nothing_tuned();
    // The choice stays for the life of the engine.
    for (Array* array : step.out.all()) array->poison();
    step.run();
    expect_step(step.p, step.out);
    expect_nothing_tuned();
}

TEST_F(CaptureUnderFirstUse, BeforeWarmUpIsNotReadyAndTheFirstCallOutsideTunes) {
    FirstStep step(first_use_engine());
    expect_not_ready(step);
    expect_nothing_tuned();
    EXPECT_EQ(cache_stats(step.engine).compiles, 0u);

    step.run();
    EXPECT_GE(tunings, 3) << "forward, dx and gradients";
    EXPECT_TRUE(std::filesystem::exists(records()));
    const int tuned = tunings;
    expect_capture_and_replay(step);
    EXPECT_EQ(tunings, tuned);
}

}  // namespace
}  // namespace smlora::test
