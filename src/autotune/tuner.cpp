#include "autotune/tuner.hpp"

#include "autotune/measured_work.hpp"
#include "autotune/measurer.hpp"
#include "engine/engine_impl.hpp"
#include "gpu/driver.hpp"
#include "jit/nvrtc.hpp"
#include "plan/search_space.hpp"
#include "tune/bucket.hpp"
#include "tune/choice.hpp"
#include "tune/policy.hpp"

#include <smlora/error.hpp>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <exception>
#include <memory>
#include <random>

namespace smlora::autotune {
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

/// Operations of a training step that have anything to choose: what a budget for a problem is for.
std::size_t operations_of(const Problem& problem) { return problem.R > 0 ? 3 : 2; }

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool is_to_be_measured(const KnownWork& work, Wanted wanted, const tune::Protocol& protocol) {
    if (wanted == Wanted::new_tuning) return true;
    if (wanted == Wanted::a_choice && work.is_served()) return false;
    if (!work.tuning || !work.tuning->complete) return true;
    if (wanted == Wanted::every_verdict) return !tune::covers(*work.tuning, work.space, protocol);
    // Whose choice is no candidate any more was tuned for another list of candidates.
    return work.tuning->choice && !work.choice;
}

/// Where a choice that was measured for something else is from.
std::string near_text(const KnownWork& work) {
    const tune::RecordName& from = work.near->name;
    return fmt::format("{} of {} with about {} tokens was never measured: taking the choice for {}{}", work.slot,
                       work.name.problem, tune::tokens_of(work.name.bucket), tune::tokens_of(from.bucket),
                       from.problem == work.name.problem ? "" : " of " + from.problem);
}

std::string choice_text(const KnownWork& work) {
    const std::string reason = tune::judge(work.tuning ? work.tuning->trials : std::vector<tune::Trial>{}).reason;
    if (!work.tuning || !work.tuning->choice) return reason;
    const tune::Candidate* chosen = tune::find_legal(work.space, *work.tuning->choice);
    return fmt::format("{}, {}", chosen == nullptr ? "?" : chosen->name, reason);
}

}  // namespace

bool KnownWork::is_served() const { return near && near->name.bucket == name.bucket && near->tuning.complete; }

Tuner::Tuner(Engine::Impl& engine) : engine_(engine), policy_(policy_of(engine)), records_(engine.cache, engine.log) {}

Tuner& tuner_of(const Engine& engine) { return dynamic_cast<Tuner&>(*engine.impl().chooser); }

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
    work.near.reset();
    // One that was cut short before anything was timed is gone on with, but what is near knows more.
    if (!work.tuning || (!work.tuning->choice && !work.tuning->complete)) {
        work.near = records_.find_near(work.name, work.relatives, work.slot, work.environment, work.space);
        if (work.near) work.choice = work.near->tuning.choice;
        return;
    }
    if (!work.tuning->choice) return;
    if (tune::find_legal(work.space, *work.tuning->choice) != nullptr) {
        work.choice = work.tuning->choice;
    } else {
        // Not an error: a candidate may have been taken off the list since, or switched off.
        engine_.log.info(fmt::format("what is recorded for {} of {} is no candidate here: {}", work.slot,
                                     work.name.problem, tune::to_json(*work.tuning->choice).dump()));
    }
}

KnownWork Tuner::look_up(const Problem& problem, const plan::Request& request, plan::Role role,
                         const gpu::DeviceFacts& facts) {
    KnownWork work;
    work.role = role;
    work.slot = plan::slot_name(problem, request, role);
    work.space = plan::search_space(problem, request, role, facts);
    work.name = {facts.name, to_string(problem), plan::bucket(request)};
    for (const Problem& related : plan::related_problems(problem, role)) work.relatives.push_back(to_string(related));
    work.environment = {facts.name,
                        facts.arch.name(),
                        facts.multiprocessors,
                        driver_version(),
                        engine_.kernels.compiler_version(),
                        engine_.kernels.template_digest(plan::families_of(work.space))};
    refresh(work);
    return work;
}

std::vector<KnownWork> Tuner::look_up(const Problem& problem, const plan::Request& request,
                                      const gpu::DeviceFacts& facts) {
    std::vector<KnownWork> works;
    plan::Choices choices;
    for (const plan::Role role : plan::chosen_roles(problem, request)) {
        if (!plan::is_needed(problem, request, role, facts, choices)) continue;
        works.push_back(look_up(problem, request, role, facts));
        choices.set(role, works.back().choice);
    }
    return works;
}

std::string Tuner::why_unfit(const KnownWork& work) {
    return records_.why_unfit(work.name, work.slot, work.environment);
}

plan::Choices Tuner::known(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts) {
    plan::Choices choices;
    if (policy_ == TuningPolicy::off || plan::chosen_roles(problem, request).empty()) return choices;
    for (KnownWork& work : look_up(problem, request, facts)) {
        if (work.near) engine_.log.info(near_text(work));
        choices.set(work.role, std::move(work.choice));
    }
    return choices;
}

plan::Choices Tuner::choose(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts,
                            const plan::CallRows& rows, CUstream stream) {
    if (policy_ != TuningPolicy::first_use || rows.T == 0) return known(problem, request, facts);
    if (plan::chosen_roles(problem, request).empty()) return {};
    if (engine_.kernels.compiler_version().empty()) {
        // What is not in the cache would seem to be refused, and be recorded so.
        engine_.log.info(
            fmt::format("not tuning {}: there is no NVRTC to compile candidates with", to_string(problem)));
        return known(problem, request, facts);
    }
    const std::string account = tune::RecordName{facts.name, to_string(problem), plan::bucket(request)}.key();
    tune::Protocol protocol = first_use_;
    protocol.seconds = first_use_seconds(account, problem, request);
    protocol.memory_bytes = engine_.options.tuning_memory_bytes;
    plan::Choices choices;
    double spent = 0;
    try {
        tune_missing(problem, request, facts, {rows, stream, rows.T, tune::Skew::uniform}, protocol, Wanted::a_choice,
                     {}, choices, spent);
    } catch (const std::exception& error) {
        engine_.log.warning(fmt::format("tuning {} failed, going on without it: {}", to_string(problem), error.what()));
        choices = known(problem, request, facts);
    }
    const std::lock_guard lock(mutex_);
    accounts_[account].spent += spent;
    return choices;
}

std::vector<jit::KernelSpec> Tuner::kernels_to_try(const Problem& problem, const plan::Request& request,
                                                   const gpu::DeviceFacts& facts, const tune::Protocol& protocol,
                                                   Wanted wanted) {
    std::vector<jit::KernelSpec> specs;
    const auto add = [&](const families::Step& step) {
        if (std::find(specs.begin(), specs.end(), step.spec) == specs.end()) specs.push_back(step.spec);
    };
    plan::Choices choices;
    for (const KnownWork& work : look_up(problem, request, facts)) {
        const std::unique_ptr<MeasuredWork> measured = measured_work(problem, request, work.role);
        const std::vector<tune::Candidate> candidates = tune::shortlist(work.space, protocol.candidates);
        const bool measures = candidates.size() > 1 && is_to_be_measured(work, wanted, protocol);
        for (std::size_t i = 0; measures && i < candidates.size(); ++i) {
            plan::Choices with_candidate = choices;
            with_candidate.set(work.role, candidates[i].configuration);
            const plan::Plan plan = plan::make_plan(problem, request, facts, with_candidate);
            for (const plan::Role role : measured->roles()) {
                if (plan.has(role)) add(plan.at(role));
            }
            if (i > 0) continue;
            for (const auto& step : measured->reference_plan().steps) {
                if (step) add(*step);
            }
        }
        choices.set(work.role, work.choice);
    }
    return specs;
}

void Tuner::limit_first_use(std::size_t candidates, int rounds) {
    first_use_.candidates = candidates;
    first_use_.rounds = rounds;
}

double Tuner::first_use_seconds(const std::string& account, const Problem& problem, const plan::Request& request) {
    const std::lock_guard lock(mutex_);
    Account& of_problem = accounts_[account];
    of_problem.operations.insert(request.index());
    const double all = engine_.options.tuning_seconds.value_or(tune::default_seconds);
    // Those that come later in a step shall have their part, and what this one leaves over is theirs.
    const std::size_t known = of_problem.operations.size() - 1;
    const std::size_t left = std::max<std::size_t>(operations_of(problem), known + 1) - known;
    return std::max(0.0, all - of_problem.spent) / static_cast<double>(left);
}

std::vector<TuneResult> Tuner::tune(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts,
                                    std::int64_t T, tune::Skew skew, const tune::Protocol& protocol, Wanted wanted,
                                    const std::function<void(const tune::Progress&)>& progress) {
    plan::Choices choices;
    double spent = 0;
    return tune_missing(problem, request, facts, {std::nullopt, nullptr, T, skew}, protocol, wanted, progress, choices,
                        spent);
}

std::vector<Comparison> Tuner::compare(const Problem& problem, const plan::Request& request,
                                       const gpu::DeviceFacts& facts, std::int64_t T, tune::Skew skew,
                                       tune::Protocol protocol,
                                       const std::function<void(const tune::Progress&)>& progress) {
    protocol.breadth = tune::Breadth::all;
    std::vector<Comparison> comparisons;
    plan::Choices choices;
    for (KnownWork& work : look_up(problem, request, facts)) {
        Comparison comparison{std::move(work), {}};
        comparison.all.slot = comparison.work.slot;
        comparison.all.environment = comparison.work.environment;
        comparison.all.workload = {T, std::string(tune::name(skew))};
        protocol.seed = fresh_seed();
        const std::lock_guard lock(measuring_);
        Measurer device(engine_, {problem, request, comparison.work.role, choices, T, std::nullopt, nullptr, skew});
        const tune::Outcome outcome = tune::measure(device, comparison.work.space, protocol, engine_.threads,
                                                    comparison.all, {.progress = progress});
        if (outcome == tune::Outcome::out_of_memory) comparison.all.trials.clear();
        choices.set(comparison.work.role, comparison.work.choice);
        comparisons.push_back(std::move(comparison));
    }
    return comparisons;
}

std::vector<TuneResult> Tuner::tune_missing(const Problem& problem, const plan::Request& request,
                                            const gpu::DeviceFacts& facts, const Rows& rows,
                                            const tune::Protocol& protocol, Wanted wanted,
                                            const std::function<void(const tune::Progress&)>& progress,
                                            plan::Choices& choices, double& spent) {
    const std::vector<plan::Role> roles = plan::chosen_roles(problem, request);
    std::vector<TuneResult> results;
    for (auto role_at = roles.begin(); role_at != roles.end(); ++role_at) {
        const plan::Role role = *role_at;
        const auto needed = [&](plan::Role one) { return plan::is_needed(problem, request, one, facts, choices); };
        if (!needed(role)) continue;
        const auto left = std::count_if(role_at, roles.end(), needed);
        TuneResult result{look_up(problem, request, role, facts), TuneOutcome::known};
        const auto legal = std::count_if(result.work.space.begin(), result.work.space.end(),
                                         [](const tune::Candidate& candidate) { return candidate.legal(); });
        if (legal < 2) {
            result.outcome = TuneOutcome::no_choice;
        } else if (is_to_be_measured(result.work, wanted, protocol)) {
            const double before = result.work.tuning ? result.work.tuning->seconds : 0;
            tune::Protocol share = protocol;
            // What earlier pieces of work left over is for the later ones.
            share.seconds = std::max(0.0, protocol.seconds - spent) / static_cast<double>(left);
            share.seed = fresh_seed();
            const auto measure_unless_done = [&] {
                const std::lock_guard lock(measuring_);
                refresh(result.work);
                // Who had the lock before may have measured: its choice is everybody's, also if it ran out of time.
                const double after = result.work.tuning ? result.work.tuning->seconds : 0;
                if (!is_to_be_measured(result.work, wanted, protocol) || after > before) {
                    result.outcome = TuneOutcome::elsewhere;
                } else if (share.seconds <= 0) {
                    result.outcome = TuneOutcome::out_of_time;
                    result.why = "other pieces of work took all of the time";
                } else {
                    measure(problem, request, rows, choices, share, wanted == Wanted::new_tuning, progress, result,
                            spent);
                }
            };
            // Whoever holds it measures for as long as this process would.
            records_.with_lock(
                result.work.name, measure_unless_done,
                std::chrono::milliseconds(static_cast<std::int64_t>(std::min(share.seconds, 3600.0) * 1e3)));
        }
        if (result.work.near) engine_.log.info(near_text(result.work));
        choices.set(role, result.work.choice);
        results.push_back(std::move(result));
    }
    return results;
}

void Tuner::measure(const Problem& problem, const plan::Request& request, const Rows& rows, const plan::Choices& others,
                    const tune::Protocol& protocol, bool anew,
                    const std::function<void(const tune::Progress&)>& progress, TuneResult& result, double& spent) {
    KnownWork& work = result.work;
    // Throws what there is to say when there is none.
    if (work.environment.compiler.empty()) static_cast<void>(jit::Nvrtc::instance());
    Measurer device(engine_, {problem, request, work.role, others, rows.T, rows.callers, rows.stream, rows.skew});
    // What is there to the end stays until its successor is.
    const bool replaces = anew && work.tuning && work.tuning->complete;
    tune::Tuning tuning = anew || !work.tuning ? tune::Tuning{} : *work.tuning;
    tuning.slot = work.slot;
    tuning.environment = work.environment;
    // Who goes on with a tuning leaves what is said of its beginning.
    if (tuning.trials.empty()) {
        tuning.workload = {rows.T, rows.callers ? "the caller's" : std::string(tune::name(rows.skew))};
    }
    // Who tunes on purpose knows that it takes time.
    const auto tell = [&](const std::string& line) {
        rows.callers ? engine_.log.notice(line) : engine_.log.info(line);
    };
    tell(fmt::format("tuning {} of {}, {} tokens: {} candidates in up to {:.1f} s", work.slot, work.name.problem,
                     rows.T, tune::shortlist(work.space, protocol.candidates).size(), protocol.seconds));
    const double before = tuning.seconds;
    double counted_from = seconds_now();
    const auto started = [&] { counted_from = seconds_now(); };
    const auto save = [&](const tune::Tuning& state) {
        tuning.date = now_text();
        if (!replaces || state.complete) static_cast<void>(records_.save(work.name, state));
    };
    tune::Outcome outcome = tune::Outcome::out_of_time;
    try {
        outcome = tune::measure(device, work.space, protocol, engine_.threads, tuning, {progress, save, started});
    } catch (...) {
        spent += seconds_now() - counted_from;
        throw;
    }
    spent += seconds_now() - counted_from;
    if (outcome == tune::Outcome::out_of_memory) {
        const tune::MemoryNeed need = device.memory_need();
        result.outcome = TuneOutcome::out_of_memory;
        result.why = fmt::format("operands take {} bytes, and {} may be used", need.fixed_bytes + need.set_bytes,
                                 tune::usable_bytes(protocol, need));
        engine_.log.info(fmt::format("not tuning {} of {}: {}", work.slot, work.name.problem, result.why));
        return;
    }
    result.outcome = outcome == tune::Outcome::complete ? TuneOutcome::complete : TuneOutcome::out_of_time;
    {
        const std::lock_guard lock(mutex_);
        made_[{work.name.key(), work.slot}] = tuning;
    }
    refresh(work);
    tell(fmt::format("tuned {} of {} in {:.1f} s{}: {}", work.slot, work.name.problem, tuning.seconds - before,
                     outcome == tune::Outcome::complete ? "" : ", out of time, to be gone on with later",
                     choice_text(work)));
}

}  // namespace smlora::autotune
