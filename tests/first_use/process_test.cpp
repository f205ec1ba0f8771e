// What the processes of first_use_test.cpp do, each in one of its own: it tells what happened in a file.
#include "autotune/tuner.hpp"
#include "engine/engine_impl.hpp"
#include "first_use/machine.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"
#include "support/backend.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

#include <smlora/cache.hpp>
#include <smlora/tune.hpp>

#include <nlohmann/json.hpp>

#include <chrono>
#include <fstream>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace smlora::test {
namespace {

/// A training step on an engine that tunes by default, in the process of its own that first_use_test.cpp starts; what
/// happened goes into a file.
TEST(AProcess, DISABLED_RunsAStep) {
    const Machine& machine = variable("SMLORA_TEST_MACHINE") == emulated.name ? emulated : gpu;
    const TemporaryFolder aside;
    // Of another engine, so that the one under test begins with its first call, in a context that is there already.
    const Engine memory(options_of(Backend::cuda, aside));
    const Projection p(memory, {.problem = machine.problem, .T = machine.T});
    ForwardRun f{p.make_y(), p.make_ranked()};
    BackwardInputRun b{p.make_dx(), p.make_ranked(), {}};
    BackwardLoraRun l{p.make_dA(), p.make_dB()};
    synchronize(memory, {});

    EngineOptions options;
    options.cache_root = variable("SMLORA_TEST_ROOT");
    options.cache_layers.emplace();
    options.tuning_seconds = std::stod(variable("SMLORA_TEST_SECONDS"));
    std::mutex mutex;
    std::map<std::string, int> tuned;
    int started = 0;
    std::vector<std::string> warnings;
    options.log = [&](LogLevel level, std::string_view line) {
        const std::lock_guard lock(mutex);
        if (level == LogLevel::warning) warnings.emplace_back(line);
        if (line.starts_with("tuning ")) ++started;
        if (line.starts_with("tuned ")) ++tuned[std::string(line.substr(6, line.find(" of ") - 6))];
    };
    const auto begin = std::chrono::steady_clock::now();
    const auto milliseconds = [&] {
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    };
    const Engine engine(options);
    autotune::tuner_of(engine).limit_first_use(machine.candidates, std::stoi(variable("SMLORA_TEST_ROUNDS")));
    ForwardArgs forward_args = p.forward_args();
    forward_args.y = f.y.view();
    forward_args.xa = p.ranked_view(f.xa);
    forward(engine, {}, p.problem, forward_args);
    const double returned = milliseconds();
    synchronize(engine, {});
    const double finished = milliseconds();
    BackwardInputArgs input_args = p.backward_input_args();
    input_args.dx = b.dx.view();
    input_args.yb = p.ranked_view(b.yb);
    backward_input(engine, {}, p.problem, input_args);
    BackwardLoraArgs lora_args = p.backward_lora_args();
    lora_args.xa = forward_args.xa;
    lora_args.yb = input_args.yb;
    lora_args.dA = l.dA.view();
    lora_args.dB = l.dB.view();
    backward_lora(engine, {}, p.problem, lora_args);
    synchronize(engine, {});
    const bool nvrtc = read("/proc/self/maps").find("libnvrtc") != std::string::npos;

    for (Array* array : {&f.y, &f.xa, &b.dx, &b.yb, &l.dA, &l.dB}) array->download();
    expect_y(p, f.y);
    expect_dx(p, b.dx);
    expect_dA(p, l.dA);
    expect_dB(p, l.dB);
    EXPECT_EQ(warnings, std::vector<std::string>{});

    nlohmann::json report{{"first_call_returned_ms", returned},
                          {"first_call_finished_ms", finished},
                          {"compiles", cache_stats(engine).compiles},
                          {"tunings_started", started},
                          {"tuned", tuned},
                          {"nvrtc_mapped", nvrtc}};
    const gpu::CurrentContext context(engine.impl().contexts, 0);
    for (const plan::Request& request : plan::step_requests(p.problem, p.T)) {
        for (const autotune::KnownWork& work :
             autotune::tuner_of(engine).look_up(p.problem, request, context.facts())) {
            report["choices"][work.slot] = work.choice() ? tuning::to_json(*work.choice()) : nlohmann::ordered_json();
            report["complete"][work.slot] = work.is_complete();
        }
    }
    std::ofstream(variable("SMLORA_TEST_REPORT")) << report.dump();
}

/// The same for a process that tunes on purpose, twice, and then begins anew and stops.
TEST(AProcess, DISABLED_Tunes) {
    const Machine& machine = variable("SMLORA_TEST_MACHINE") == emulated.name ? emulated : gpu;
    EngineOptions engine_options;
    engine_options.cache_root = variable("SMLORA_TEST_ROOT");
    engine_options.cache_layers.emplace();
    engine_options.tuning = TuningPolicy::off;
    const Engine engine(engine_options);
    nlohmann::json report{{"told", 0}};
    TuneOptions options;
    options.tokens = {machine.T};
    options.seconds = std::stod(variable("SMLORA_TEST_SECONDS"));
    options.candidates = static_cast<std::int32_t>(machine.candidates);
    options.rounds = std::stoi(variable("SMLORA_TEST_ROUNDS"));
    options.skew = TuneSkew::zipf;
    const auto tune = [&](const char* name) {
        const TuneReport done = smlora::tune(engine, machine.problem, options);
        report[name]["stopped"] = done.stopped;
        report[name]["seconds"] = done.seconds;
        for (const TunedWork& work : done.works) {
            EXPECT_EQ(work.tokens, machine.T);
            EXPECT_EQ(work.routing, "zipf");
            EXPECT_EQ(work.lacks_choice(), work.choice.empty());
            report[name]["outcomes"][work.work] = smlora::name(work.outcome);
            report[name]["choices"][work.work] = work.choice;
        }
    };
    options.progress = [&](const TuneProgress& progress) {
        EXPECT_EQ(progress.tokens, machine.T);
        report["told"] = report["told"].get<int>() + 1;
        return true;
    };
    tune("first");
    options.progress = {};
    tune("second");
    options.again = true;
    options.progress = [](const TuneProgress&) { return false; };
    tune("stopped");
    options.progress = [](const TuneProgress&) -> bool { throw std::runtime_error("no more of it"); };
    EXPECT_THROW(tune("thrown"), std::runtime_error);
    options.again = false;
    options.progress = {};
    tune("last");
    std::ofstream(variable("SMLORA_TEST_REPORT")) << report.dump();
}

}  // namespace
}  // namespace smlora::test
