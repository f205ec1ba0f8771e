// Tuning on purpose: the pieces of work of a training step, one number of tokens after the other.
#include <smlora/tune.hpp>

#include "autotune/tuner.hpp"
#include "engine/engine_impl.hpp"
#include "gpu/driver.hpp"
#include "plan/step_kernels.hpp"
#include "tuning/choice.hpp"
#include "tuning/determinism.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <array>
#include <utility>

namespace smlora {
namespace {

// What a job may run: from a short fine-tuning batch to a long one.
constexpr std::array<std::int64_t, 7> typical_tokens{1024, 2048, 4096, 8192, 16384, 32768, 65536};

/// The caller wants no more.
struct Stopped {};

[[noreturn]] void refuse(std::string_view name, std::string_view expected, std::string_view got) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: expected {}, got {}", name, expected, got));
}

tuning::Skew skew_of(TuneSkew skew) {
    switch (skew) {
        case TuneSkew::uniform:
            return tuning::Skew::uniform;
        case TuneSkew::zipf:
            return tuning::Skew::zipf;
        case TuneSkew::one:
            return tuning::Skew::one;
    }
    refuse("skew", "0 to 2", std::to_string(static_cast<std::int32_t>(skew)));
}

void validate(const TuneOptions& options) {
    for (const std::int64_t T : options.tokens) {
        if (T < 1) refuse("tokens", "1 or more", std::to_string(T));
    }
    if (!(options.seconds > 0)) refuse("seconds", "a number above 0", fmt::format("{}", options.seconds));
    if (options.memory_bytes == 0) refuse("memory_bytes", "1 or more", "0");
    if (options.candidates && *options.candidates < 1) {
        refuse("candidates", "1 or more", std::to_string(*options.candidates));
    }
    if (options.rounds < 1) refuse("rounds", "1 or more", std::to_string(options.rounds));
    static_cast<void>(skew_of(options.skew));
}

autotune::Wanted wanted_of(const TuneOptions& options) {
    if (options.again) return autotune::Wanted::new_tuning;
    return options.candidates ? autotune::Wanted::every_verdict : autotune::Wanted::own_tuning;
}

/// In the calling thread's context.
std::uint64_t half_of_free_memory() {
    std::size_t free = 0;
    std::size_t total = 0;
    SMLORA_CUDA(cuMemGetInfo, &free, &total);
    return free / 2;
}

TunedWork describe(const autotune::TuneResult& result, std::int64_t T) {
    TunedWork done;
    done.tokens = T;
    done.work = result.work.slot;
    done.outcome = result.outcome;
    done.record = result.work.name.key();
    done.reason = result.why;
    const tuning::Tuning* const tuning = result.work.tuning();
    if (tuning == nullptr) return done;
    done.complete = tuning->complete;
    done.routing = tuning->workload.routing;
    done.seconds = tuning->seconds;
    const tuning::Judgement judgement = tuning::judge(tuning->trials);
    if (done.reason.empty()) done.reason = judgement.reason;
    if (!judgement.winner) return done;
    done.choice = tuning->trials[*judgement.winner].candidate.name;
    const tuning::Estimate estimate = tuning::estimates(tuning->trials)[*judgement.winner];
    if (estimate.samples > 0) done.median_seconds = estimate.seconds;
    return done;
}

/// The pieces of work of a step of T tokens.
void tune_step(autotune::Tuner& tuner, const gpu::DeviceFacts& facts, const Problem& problem, std::int64_t T,
               std::uint64_t unpack_limit, const TuneOptions& options, std::vector<TunedWork>& works) {
    tuning::Protocol protocol;
    protocol.rounds = options.rounds;
    if (options.candidates) protocol.candidates = static_cast<std::size_t>(*options.candidates);
    protocol.memory_bytes = options.memory_bytes ? *options.memory_bytes : half_of_free_memory();
    std::function<void(const tuning::Progress&)> progress;
    if (options.progress) {
        progress = [&](const tuning::Progress& p) {
            const TuneProgress seen{T, p.slot, p.phase, p.done, p.total, p.best, p.best_seconds};
            if (!options.progress(seen)) throw Stopped{};
        };
    }
    const tuning::Budget budget(options.seconds, tuner.clock());
    const std::vector<plan::Request> requests = plan::step_requests(problem, T, unpack_limit);
    for (std::size_t i = 0; i < requests.size(); ++i) {
        const autotune::Sitting sitting{{.T = T, .skew = skew_of(options.skew)},
                                        budget.part(requests.size() - i),
                                        budget,
                                        protocol,
                                        wanted_of(options),
                                        progress};
        for (const autotune::TuneResult& result : tuner.tune(problem, requests[i], facts, sitting)) {
            works.push_back(describe(result, T));
        }
    }
}

}  // namespace

std::string_view name(TuneOutcome outcome) {
    switch (outcome) {
        case TuneOutcome::recorded:
            return "recorded";
        case TuneOutcome::tuned:
            return "tuned";
        case TuneOutcome::out_of_time:
            return "out of time";
        case TuneOutcome::out_of_memory:
            return "out of memory";
        case TuneOutcome::elsewhere:
            return "tuned elsewhere";
        case TuneOutcome::one_candidate:
            return "one candidate";
    }
    refuse("outcome", "0 to 5", std::to_string(static_cast<std::int32_t>(outcome)));
}

TuneReport tune(const Engine& engine, const Problem& problem, const TuneOptions& options) {
    validate(problem);
    validate(options);
    if (engine.backend() != Backend::cuda) {
        throw Error(ErrorCode::unsupported,
                    "engine: expected the CUDA backend, got the CPU backend, which has one kernel for each operation");
    }
    Engine::Impl& impl = engine.impl();
    autotune::Tuner& tuner = autotune::tuner_of(engine);
    const tuning::Budget whole(0, tuner.clock());
    const gpu::CurrentContext context(impl.contexts, impl.options.device);
    std::vector<std::int64_t> tokens = options.tokens;
    if (tokens.empty()) tokens.assign(typical_tokens.begin(), typical_tokens.end());
    tokens = tuning::choice_tokens(*impl.options.determinism, std::move(tokens));
    TuneReport report;
    try {
        for (const std::int64_t T : tokens) {
            tune_step(tuner, context.facts(), problem, T, impl.unpack_limit, options, report.works);
        }
    } catch (const Stopped&) {
        report.stopped = true;
    }
    report.seconds = whole.spent();
    return report;
}

}  // namespace smlora
