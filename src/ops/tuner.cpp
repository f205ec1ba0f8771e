#include "ops/tuner.hpp"

#include "gpu/driver.hpp"
#include "ops/engine_impl.hpp"
#include "ops/measurer.hpp"
#include "ops/search_space.hpp"
#include "tune/choice.hpp"
#include "tune/policy.hpp"

#include <smlora/error.hpp>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <random>

namespace smlora::ops {
namespace {

std::string now_text() {
    return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                       fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
}

/// "13.0"; empty without a driver.
std::string driver_version() {
    try {
        int version = 0;
        SMLORA_CUDA(cuDriverGetVersion, &version);
        return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
    } catch (const Error&) {
        return {};
    }
}

TuningPolicy policy_of(Engine::Impl& engine) {
    const EngineOptions& options = engine.options;
    if (options.tuning) static_cast<void>(name(*options.tuning));  // refuses what is no policy
    if (options.tuning_seconds && !(*options.tuning_seconds >= 0)) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("tuning_seconds: expected 0 or more, got {}", *options.tuning_seconds));
    }
    std::string complaint;
    const TuningPolicy policy = tune::policy(options.tuning, complaint);
    if (!complaint.empty() && options.backend == Backend::cuda) engine.log.warning(complaint);
    return policy;
}

/// Pieces of work of a problem at one bucket, all operations together: what a budget for a problem is for.
double works_of(const Problem& problem) { return problem.R > 0 ? 5 : 2; }

std::string choice_text(const KnownWork& work) {
    if (!work.tuning || !work.tuning->choice) return "the heuristic choice, as no candidate was right";
    const tune::Candidate* chosen = tune::find_legal(work.space, *work.tuning->choice);
    return fmt::format("{}, {}", chosen == nullptr ? "?" : chosen->name, tune::judge(work.tuning->trials).reason);
}

}  // namespace

Tuner::Tuner(Engine::Impl& engine) : engine_(engine), policy_(policy_of(engine)), records_(engine.cache, engine.log) {}

std::uint64_t Tuner::fresh_seed() {
    std::random_device random;
    return (std::uint64_t{random()} << 32) | random();
}

void Tuner::refresh(KnownWork& work) {
    work.tuning = records_.find(work.name, work.slot, work.environment);
    if (!work.tuning || !work.tuning->complete) {
        const std::lock_guard lock(mutex_);
        const auto made = made_.find({work.name.key(), work.slot});
        if (made != made_.end() && tune::mismatch(made->second.environment, work.environment).empty()) {
            work.tuning = made->second;
        }
    }
    work.choice.reset();
    work.near_bucket.reset();
    std::optional<tune::Configuration> recorded = work.tuning ? work.tuning->choice : std::nullopt;
    if (!work.tuning) {
        if (auto near = records_.find_near(work.name, work.slot, work.environment)) {
            work.near_bucket = near->bucket;
            recorded = near->tuning.choice;
        }
    }
    if (!recorded) return;
    if (tune::find_legal(work.space, *recorded) != nullptr) {
        work.choice = std::move(recorded);
    } else {
        // Not an error: a candidate may have been taken off the list since, or switched off.
        engine_.log.info(fmt::format("what is recorded for {} of {} is no candidate here: {}", work.slot,
                                     work.name.problem, tune::to_json(*recorded).dump()));
        work.near_bucket.reset();
    }
}

KnownWork Tuner::look_up(const Problem& problem, const Variant& variant, Role role, const gpu::DeviceFacts& facts) {
    KnownWork work;
    work.role = role;
    work.slot = slot_name(problem, variant, role);
    work.space = search_space(problem, variant, role, facts);
    work.name = {facts.name, to_string(problem), variant.bucket};
    work.environment = {facts.name,
                        facts.arch.name(),
                        facts.multiprocessors,
                        driver_version(),
                        engine_.kernels.compiler_version(),
                        engine_.kernels.template_digest(families_of(work.space))};
    refresh(work);
    return work;
}

std::vector<KnownWork> Tuner::look_up(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts) {
    std::vector<KnownWork> works;
    Choices choices;
    for (const Role role : chosen_roles(problem, variant)) {
        if (!is_needed(make_plan(problem, variant, facts, choices), role)) continue;
        works.push_back(look_up(problem, variant, role, facts));
        choices.set(role, works.back().choice);
    }
    return works;
}

Choices Tuner::known(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts) {
    Choices choices;
    if (policy_ == TuningPolicy::off || chosen_roles(problem, variant).empty()) return choices;
    for (KnownWork& work : look_up(problem, variant, facts)) {
        if (work.near_bucket) {
            engine_.log.info(fmt::format("{} of {} with about {} tokens was never measured: taking the choice for {}",
                                         work.slot, work.name.problem, tune::tokens_of(work.name.bucket),
                                         tune::tokens_of(*work.near_bucket)));
        }
        choices.set(work.role, std::move(work.choice));
    }
    return choices;
}

Choices Tuner::choose(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts,
                      const CallRows& rows, CUstream stream) {
    if (policy_ != TuningPolicy::first_use || rows.T == 0) return known(problem, variant, facts);
    const auto roles = chosen_roles(problem, variant);
    tune::Protocol protocol;
    protocol.seconds = engine_.options.tuning_seconds.value_or(tune::default_seconds) *
                       std::min(1.0, static_cast<double>(roles.size()) / works_of(problem));
    protocol.memory_bytes = engine_.options.tuning_memory_bytes;
    Choices choices;
    try {
        tune_missing(problem, variant, facts, {rows, stream, rows.T, tune::Skew::uniform}, protocol, {}, choices);
    } catch (const Error& error) {
        engine_.log.warning(fmt::format("tuning {} failed, going on without it: {}", to_string(problem), error.what()));
        return known(problem, variant, facts);
    }
    return choices;
}

std::vector<TuneResult> Tuner::tune(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts,
                                    std::int64_t T, tune::Skew skew, const tune::Protocol& protocol,
                                    const std::function<void(const tune::Progress&)>& progress) {
    Choices choices;
    return tune_missing(problem, variant, facts, {std::nullopt, nullptr, T, skew}, protocol, progress, choices);
}

std::vector<TuneResult> Tuner::tune_missing(const Problem& problem, const Variant& variant,
                                            const gpu::DeviceFacts& facts, const Rows& rows,
                                            const tune::Protocol& protocol,
                                            const std::function<void(const tune::Progress&)>& progress,
                                            Choices& choices) {
    double spent = 0;  // on measuring; waiting for who measures the same is not on this account
    const auto missing = [&](const KnownWork& work) {
        return !work.tuning || !work.tuning->complete || !tune::covers(*work.tuning, work.space, protocol.candidates);
    };
    std::vector<TuneResult> results;
    std::size_t left = chosen_roles(problem, variant).size();
    for (const Role role : chosen_roles(problem, variant)) {
        if (!is_needed(make_plan(problem, variant, facts, choices), role)) {
            --left;
            continue;
        }
        TuneResult result{look_up(problem, variant, role, facts), TuneOutcome::known};
        const auto legal = std::count_if(result.work.space.begin(), result.work.space.end(),
                                         [](const tune::Candidate& candidate) { return candidate.legal(); });
        if (legal < 2) {
            result.outcome = TuneOutcome::no_choice;
        } else if (missing(result.work)) {
            const double before = result.work.tuning ? result.work.tuning->seconds : 0;
            // What earlier pieces of work left over is for the later ones.
            tune::Protocol share = protocol;
            share.seconds = std::max(0.0, protocol.seconds - spent) / static_cast<double>(left);
            share.seed = fresh_seed();
            records_.with_lock(result.work.name, [&] {
                const std::lock_guard lock(measuring_);
                refresh(result.work);
                // Who had the lock before may have measured: its choice is everybody's, also if it ran out of time.
                const double after = result.work.tuning ? result.work.tuning->seconds : 0;
                if (!missing(result.work) || after > before) {
                    result.outcome = TuneOutcome::elsewhere;
                } else {
                    result.outcome = measure(problem, variant, rows, choices, share, progress, result.work);
                    if (result.work.tuning) spent += result.work.tuning->seconds - before;
                }
            });
        }
        choices.set(role, result.work.choice);
        results.push_back(std::move(result));
        --left;
    }
    return results;
}

TuneOutcome Tuner::measure(const Problem& problem, const Variant& variant, const Rows& rows, const Choices& others,
                           tune::Protocol protocol, const std::function<void(const tune::Progress&)>& progress,
                           KnownWork& work) {
    Measurer device(engine_, {problem, variant, work.role, others, rows.T, rows.callers, rows.stream, rows.skew});
    tune::Tuning tuning = work.tuning.value_or(tune::Tuning{});
    tuning.slot = work.slot;
    tuning.environment = work.environment;
    tuning.workload = {rows.T, rows.callers ? "the caller's" : std::string(tune::name(rows.skew))};
    engine_.log.info(fmt::format("tuning {} of {}, {} tokens: up to {} candidates in {:.1f} s", work.slot,
                                 work.name.problem, rows.T, std::min(protocol.candidates, work.space.size()),
                                 protocol.seconds));
    const double before = tuning.seconds;
    const auto save = [&](const tune::Tuning& state) {
        tuning.date = now_text();
        static_cast<void>(records_.save(work.name, state));
    };
    const tune::Outcome outcome =
        tune::measure(device, work.space, protocol, engine_.threads, tuning, {progress, save});
    if (outcome == tune::Outcome::out_of_memory) {
        engine_.log.info(fmt::format("not tuning {} of {}: its operands do not fit the memory that may be used",
                                     work.slot, work.name.problem));
        return TuneOutcome::out_of_memory;
    }
    {
        const std::lock_guard lock(mutex_);
        made_[{work.name.key(), work.slot}] = tuning;
    }
    refresh(work);
    engine_.log.info(fmt::format(
        "tuned {} of {} in {:.1f} s{}: {}", work.slot, work.name.problem, tuning.seconds - before,
        outcome == tune::Outcome::complete ? "" : ", out of time, to be gone on with later", choice_text(work)));
    return outcome == tune::Outcome::complete ? TuneOutcome::complete : TuneOutcome::out_of_time;
}

}  // namespace smlora::ops
