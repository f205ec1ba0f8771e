// The same bits every time: run again, on other streams at once, from several threads at once.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/gpu.hpp"
#include "support/runs.hpp"

#include <atomic>
#include <thread>

namespace smlora::test {
namespace {

bool same_step(const StepRun& a, const StepRun& b) {
    return a.forward.y.same_bits(b.forward.y) && a.forward.xa.same_bits(b.forward.xa) &&
           a.backward_input.dx.same_bits(b.backward_input.dx) && a.backward_input.yb.same_bits(b.backward_input.yb) &&
           (!a.backward_input.dgates.given() || a.backward_input.dgates.same_bits(b.backward_input.dgates)) &&
           a.backward_lora.dA.same_bits(b.backward_lora.dA) && a.backward_lora.dB.same_bits(b.backward_lora.dB);
}

Cases repeated_cases() {
    using enum RowOrder;
    const Problem p = shape(8, 96, 80, 16, 2);
    return {
        {.name = "bf16", .problem = p, .T = 90},
        {.name = "fp16", .problem = shape(8, 96, 80, 16, 2, DType::fp16), .T = 90},
        {.name = "fp32", .problem = shape(8, 96, 80, 16, 2, DType::fp32), .T = 90},
        {.name = "odd", .problem = shape(8, 37, 53, 5, 2), .T = 90},
        {.name = "summed_gates", .problem = with_gates(with_rows(p, token, token), DType::fp32), .T = 90},
        {.name = "many_rows_of_one_expert",
         .problem = with_rows(shape(4, 256, 192, 16, 1), token, token),
         .T = 3000,
         .T_on_cpu = 500,
         .choice = Choice::one_expert},
    };
}

class Repeated : public OnCases {};

TEST_P(Repeated, RunGivesTheSameBits) {
    const Projection p(engine(), test_case());
    const StepRun first = run_step(p);
    for (int repeat = 0; repeat < 3; ++repeat) EXPECT_TRUE(same_step(run_step(p), first)) << "repeat " << repeat;
}

TEST_P(Repeated, ByAnotherEngineGivesTheSameBits) {
    const TemporaryFolder folder;
    EngineOptions options = options_of(backend(), folder);
    options.threads = 3;  // the CPU backend's division of work must not show either
    const Engine other(options);
    const Projection p(engine(), test_case());
    const Projection same_inputs(other, test_case());
    EXPECT_TRUE(same_step(run_step(same_inputs), run_step(p)));
}
SMLORA_ON_CASES(Small, Repeated, repeated_cases());

class Threads : public OnEachBackend {};

TEST_P(Threads, AtOnceOnOneEngineGiveTheSameBits) {
    // An engine of its own: the threads meet its kernels for the first time together.
    const TemporaryFolder folder;
    const Engine cold(options_of(backend(), folder));
    const Projection p(cold, {.problem = shape(8, 96, 88, 16, 2), .T = 40});
    constexpr int count = 4;
    std::vector<StepRun> runs(index(count));
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) {
        threads.emplace_back([&, i] { runs[index(i)] = run_step(p); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const StepRun& run : runs) {
        EXPECT_TRUE(same_step(run, runs.front()));
        expect_y(p, run.forward.y);
        expect_dx(p, run.backward_input.dx);
        expect_dA(p, run.backward_lora.dA);
        expect_dB(p, run.backward_lora.dB);
    }
}

TEST_P(Threads, WithProblemsOfTheirOwnDoNotDisturbEachOther) {
    std::vector<Projection> projections;
    for (const std::int64_t R : {4, 8, 16, 32}) {
        projections.emplace_back(engine(), Case{.problem = shape(4, 64, 72, R, 2), .T = 30});
    }
    std::vector<StepRun> alone(projections.size());
    for (std::size_t i = 0; i < projections.size(); ++i) alone[i] = run_step(projections[i]);
    std::atomic<int> differing{0};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < projections.size(); ++i) {
        threads.emplace_back([&, i] {
            for (int repeat = 0; repeat < 5; ++repeat) {
                if (!same_step(run_step(projections[i]), alone[i])) ++differing;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(differing, 0);
}
SMLORA_ON_EACH_BACKEND(Small, Threads);

class Streams : public OnGpu, public testing::WithParamInterface<Case> {};

TEST_P(Streams, TwoAtOnceGiveTheSameBits) {
    const CallersContext context;
    const GpuStream streams[2];
    const Projection p(engine(), GetParam());
    const StepRun alone = run_step(p);
    constexpr std::size_t calls = 8;
    std::vector<Array> y, dx, dA, dB;
    for (std::size_t i = 0; i < calls; ++i) {  // beforehand: taking device memory waits for the streams
        y.push_back(p.make_y());
        dx.push_back(p.make_dx());
        dA.push_back(p.make_dA());
        dB.push_back(p.make_dB());
    }
    for (std::size_t i = 0; i < calls; ++i) {
        const Stream stream = streams[i % 2].view();
        ForwardArgs f = p.forward_args();
        f.y = y[i].view();
        BackwardInputArgs b = p.backward_input_args();
        b.dx = dx[i].view();
        BackwardLoraArgs l = p.backward_lora_args();
        l.dA = dA[i].view();
        l.dB = dB[i].view();
        forward(engine(), stream, p.problem, f);
        backward_input(engine(), stream, p.problem, b);
        backward_lora(engine(), stream, p.problem, l);
    }
    for (const GpuStream& stream : streams) synchronize(engine(), stream.view());
    const BackwardLoraRun recomputed = run_backward_lora(p);
    for (std::size_t i = 0; i < calls; ++i) {
        for (Array* array : {&y[i], &dx[i], &dA[i], &dB[i]}) array->download();
        EXPECT_TRUE(y[i].same_bits(alone.forward.y)) << "call " << i;
        EXPECT_TRUE(dx[i].same_bits(alone.backward_input.dx)) << "call " << i;
        EXPECT_TRUE(dA[i].same_bits(recomputed.dA)) << "call " << i;
        EXPECT_TRUE(dB[i].same_bits(recomputed.dB)) << "call " << i;
    }
}
INSTANTIATE_TEST_SUITE_P(Small, Streams, testing::ValuesIn(repeated_cases()),
                         [](const auto& case_info) { return "cuda_" + case_info.param.name; });

class Context : public OnGpu {};

TEST_F(Context, OfTheCallingThreadIsLeftAsItWas) {
    const Projection p(engine(), {.problem = shape(4, 96, 80, 16, 2), .T = 30});
    CUcontext before = nullptr, after = nullptr;
    std::thread([&] {  // a thread without a context
        SMLORA_CUDA(cuCtxGetCurrent, &before);
        run_step(p);
        SMLORA_CUDA(cuCtxGetCurrent, &after);
    })
        .join();
    EXPECT_EQ(before, nullptr);
    EXPECT_EQ(after, nullptr);
    const CallersContext context;
    run_step(p);
    SMLORA_CUDA(cuCtxGetCurrent, &after);
    EXPECT_EQ(after, context.handle());
}

}  // namespace
}  // namespace smlora::test
