#include "autotune/tuner.hpp"

#include "autotune/measured_work.hpp"
#include "autotune/measurer.hpp"
#include "engine/engine_impl.hpp"
#include "gpu/driver.hpp"
#include "jit/nvrtc.hpp"
#include "plan/search_space.hpp"
#include "tuning/bucket.hpp"
#include "tuning/choice.hpp"
#include "tuning/policy.hpp"
#include "util/counted.hpp"

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

TuningPolicy policy_of(const EngineOptions& options, util::Logger& log) {
    if (options.tuning) static_cast<void>(name(*options.tuning));  // refuses what is no policy
    if (options.tuning_seconds && !(*options.tuning_seconds >= 0)) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("tuning_seconds: expected 0 or more, got {}", *options.tuning_seconds));
    }
    std::string complaint;
    const TuningPolicy policy = tuning::policy(options.tuning, complaint);
    if (!complaint.empty() && options.backend == Backend::cuda) log.warning(complaint);
    // What is measured on the rows of a call depends on them.
    const bool may_measure = options.determinism != Determinism::batch;
    return policy == TuningPolicy::first_use && !may_measure ? TuningPolicy::record_only : policy;
}

/// Operations of a training step that have anything to choose: what a budget for a problem is for.
std::size_t operations_of(const Problem& problem) { return problem.R > 0 ? 3 : 2; }

/// Where a choice that was measured for something else is from.
std::string near_text(const KnownWork& work) {
    const tuning::RecordName& from = work.near()->name;
    return fmt::format("{} of {}: no measurement for {}; using the one for {}{}", work.slot, work.name.problem,
                       util::counted(tuning::tokens_of(work.name.bucket), "token"),
                       util::counted(tuning::tokens_of(from.bucket), "token"),
                       from.problem == work.name.problem ? "" : " of " + from.problem);
}

std::string choice_text(const KnownWork& work) {
    const tuning::Tuning* const tuning = work.tuning();
    const std::string reason = tuning::judge(tuning != nullptr ? tuning->trials : std::vector<tuning::Trial>{}).reason;
    if (tuning == nullptr || !tuning->choice) return reason;
    const tuning::Candidate* chosen = tuning::find_legal(work.space, *tuning->choice);
    return fmt::format("{}, {}", chosen == nullptr ? "?" : chosen->name, reason);
}

TunerParts parts_of(Engine::Impl& engine) {
    return {engine.options,
            engine.log,
            engine.cache,
            engine.kernels,
            engine.threads,
            [&engine](const MeasuredCase& measured) { return std::make_unique<Measurer>(engine, measured); },
            tuning::steady_clock()};
}

/// In the order of `results`.
plan::Choices choices_of(const std::vector<TuneResult>& results) {
    plan::Choices choices;
    for (const TuneResult& result : results) choices.set(result.work.role, result.work.choice());
    return choices;
}

/// Whether to decode or to unpack turns with the rows of an expert. Further away the cost model knows it better.
bool is_next_to(std::uint8_t bucket, std::uint8_t other) {
    return std::max(bucket, other) - std::min(bucket, other) <= 1;
}

double seconds_spent(const KnownWork& work) { return work.tuning() != nullptr ? work.tuning()->seconds : 0; }

bool has_a_choice(const tuning::SearchSpace& space) {
    return std::count_if(space.begin(), space.end(), [](const tuning::Candidate& one) { return one.legal(); }) > 1;
}

std::chrono::duration<double> duration_of(const tuning::Budget& budget) {
    // Longer ones would overflow where they are counted in nanoseconds.
    constexpr double longest = 24 * 3600;
    return std::chrono::duration<double>(std::min(budget.left(), longest));
}

}  // namespace

Tuner::Tuner(Engine::Impl& engine) : Tuner(parts_of(engine)) {}

Tuner::Tuner(TunerParts parts)
    : parts_(std::move(parts)),
      policy_(policy_of(parts_.options, parts_.log)),
      records_(parts_.cache, parts_.log),
      steps_(parts_.options.tuning_seconds.value_or(tuning::default_seconds), parts_.clock) {}

Tuner& tuner_of(const Engine& engine) { return dynamic_cast<Tuner&>(*engine.impl().chooser); }

std::uint64_t Tuner::fresh_seed() {
    std::random_device random;
    return (std::uint64_t{random()} << 32) | random();
}

void Tuner::refresh(KnownWork& work) {
    std::optional<tuning::Tuning> own = records_.find(work.name, work.slot, work.environment);
    if (!own || !own->complete) {
        const std::lock_guard lock(mutex_);
        const auto made = made_.find({work.name.key(), work.slot});
        if (made != made_.end() && tuning::mismatch(made->second.environment, work.environment).empty()) {
            own = made->second;
        }
    }
    work.begun.reset();
    if (own && (own->choice || own->complete)) {
        const bool is_usable = own->choice && tuning::find_legal(work.space, *own->choice) != nullptr;
        // Not an error: a candidate may have been taken off the list since, or switched off.
        if (own->choice && !is_usable) {
            parts_.log.info(
                fmt::format("ignoring the recorded choice for {} of {}: not available on this GPU, or switched off: {}",
                            work.slot, work.name.problem, tuning::to_json(*own->choice).dump()));
        }
        work.knowledge = OwnTuning{std::move(*own), is_usable};
        return;
    }
    work.begun = std::move(own);
    auto near = records_.find_near(work.name, work.relatives, work.slot, work.environment, work.space);
    const bool serves = near && (work.role != plan::Role::decoding || is_next_to(near->name.bucket, work.name.bucket));
    work.knowledge = serves ? Knowledge(std::move(*near)) : Knowledge(Unmeasured{});
}

KnownWork Tuner::look_up(const Problem& problem, const plan::Request& request, plan::Role role,
                         const gpu::DeviceFacts& facts) {
    const auto [recorded, asked] = plan::recorded_as(problem, request, role);
    KnownWork work;
    work.role = role;
    work.slot = plan::slot_name(recorded, asked, role);
    work.space = plan::search_space(recorded, asked, role, facts);
    work.name = {facts.name, to_string(recorded), plan::bucket(request)};
    for (const Problem& related : plan::related_problems(recorded, role)) work.relatives.push_back(to_string(related));
    work.environment = {facts.name,
                        facts.arch.name(),
                        facts.multiprocessors,
                        driver_version(),
                        parts_.kernels.compiler_version(),
                        parts_.kernels.template_digest(plan::families_of(work.space))};
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
        choices.set(role, works.back().choice());
    }
    return works;
}

MeasuredCase Tuner::case_of(const Problem& problem, const plan::Request& request, plan::Role role,
                            const gpu::DeviceFacts& facts, plan::Choices choices, const MeasuredRows& rows) {
    if (role == plan::Role::product) {
        return {plan::with_plain_weights(problem), plan::with_plain_weights(request), role, choices, rows};
    }
    if (role == plan::Role::decoding) {
        choices.set(plan::Role::product, look_up(problem, request, plan::Role::product, facts).choice());
    }
    return {problem, request, role, choices, rows};
}

std::optional<tuning::Configuration> Tuner::kept(const KnownWork& work) {
    if (parts_.options.determinism != Determinism::batch) return work.choice();
    const std::lock_guard lock(mutex_);
    return kept_.try_emplace({work.name.key(), work.slot}, work.choice()).first->second;
}

std::string Tuner::why_unfit(const KnownWork& work) {
    return records_.why_unfit(work.name, work.slot, work.environment);
}

plan::Choices Tuner::known(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts) {
    plan::Choices choices;
    if (policy_ == TuningPolicy::off) return choices;
    for (const plan::Role role : plan::chosen_roles(problem, request)) {
        if (!plan::is_needed(problem, request, role, facts, choices)) continue;
        const KnownWork work = look_up(problem, request, role, facts);
        if (work.near() != nullptr) parts_.log.info(near_text(work));
        choices.set(role, kept(work));
    }
    return choices;
}

plan::Chooser::Recorded Tuner::recorded(const Problem& problem, const plan::Request& request,
                                        const gpu::DeviceFacts& facts) {
    Recorded counts;
    for (const KnownWork& work : look_up(problem, request, facts)) {
        ++counts.works;
        if (work.is_served() || (work.is_complete() && work.choice())) ++counts.recorded;
    }
    return counts;
}

plan::Choices Tuner::choose(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts,
                            const plan::CallRows& rows, CUstream stream) {
    if (policy_ != TuningPolicy::first_use || rows.T == 0) return known(problem, request, facts);
    if (plan::chosen_roles(problem, request).empty()) return {};
    const StepBudgets::Turn turn(steps_,
                                 tuning::RecordName{facts.name, to_string(problem), plan::bucket(request)}.key(),
                                 request.index(), operations_of(problem));
    if (parts_.kernels.compiler_version().empty()) {
        // What is not in the cache would seem to be refused, and be recorded so.
        parts_.log.info(fmt::format("not tuning {}: there is no NVRTC to compile candidates with", to_string(problem)));
        return known(problem, request, facts);
    }
    tuning::Protocol protocol = first_use_;
    protocol.memory_bytes = parts_.options.tuning_memory_bytes;
    try {
        return choices_of(tune(problem, request, facts, {{rows, stream, rows.T}, turn.own(), turn.whole(), protocol}));
    } catch (const std::exception& error) {
        parts_.log.warning(
            fmt::format("tuning {} failed; using what is known without it: {}", to_string(problem), error.what()));
        return known(problem, request, facts);
    }
}

std::vector<jit::KernelSpec> Tuner::kernels_to_try(const Problem& problem, const plan::Request& request,
                                                   const gpu::DeviceFacts& facts, const tuning::Protocol& protocol,
                                                   Wanted wanted) {
    std::vector<jit::KernelSpec> specs;
    const auto add = [&](const families::Step& step) {
        if (std::find(specs.begin(), specs.end(), step.spec) == specs.end()) specs.push_back(step.spec);
    };
    plan::Choices choices;
    for (const KnownWork& work : look_up(problem, request, facts)) {
        const MeasuredCase tried = case_of(problem, request, work.role, facts, choices, {});
        const std::unique_ptr<MeasuredWork> measured = measured_work(tried.problem, tried.request, work.role, facts);
        const std::vector<tuning::Candidate> candidates = tuning::shortlist(work.space, protocol.candidates);
        const bool measures = candidates.size() > 1 && is_to_be_measured(work, wanted, protocol);
        for (std::size_t i = 0; measures && i < candidates.size(); ++i) {
            plan::Choices with_candidate = tried.others;
            with_candidate.set(work.role, candidates[i].configuration);
            const plan::Plan plan = plan::make_plan(tried.problem, tried.request, facts, with_candidate);
            for (const plan::Role role : measured->roles()) {
                if (plan.has(role)) add(plan.at(role));
            }
            if (i > 0) continue;
            for (const auto& step : measured->reference_plan().steps) {
                if (step) add(*step);
            }
        }
        choices.set(work.role, work.choice());
    }
    return specs;
}

void Tuner::limit_first_use(std::size_t candidates, int rounds) {
    first_use_.candidates = candidates;
    first_use_.rounds = rounds;
}

std::vector<Comparison> Tuner::compare(const Problem& problem, const plan::Request& request,
                                       const gpu::DeviceFacts& facts, const MeasuredRows& rows,
                                       tuning::Protocol protocol,
                                       const std::function<void(const tuning::Progress&)>& progress) {
    protocol.breadth = tuning::Breadth::all;
    std::vector<Comparison> comparisons;
    plan::Choices choices;
    for (KnownWork& work : look_up(problem, request, facts)) {
        Comparison comparison{std::move(work), {}};
        comparison.all.slot = comparison.work.slot;
        comparison.all.environment = comparison.work.environment;
        comparison.all.workload = {rows.T, std::string(tuning::name(rows.skew))};
        protocol.seed = fresh_seed();
        const std::lock_guard lock(measuring_);
        const auto device = parts_.device(case_of(problem, request, comparison.work.role, facts, choices, rows));
        const tuning::Outcome outcome = tuning::measure(*device, comparison.work.space, protocol, parts_.threads,
                                                        comparison.all, {.progress = progress});
        if (outcome == tuning::Outcome::out_of_memory) comparison.all.trials.clear();
        choices.set(comparison.work.role, comparison.work.choice());
        comparisons.push_back(std::move(comparison));
    }
    return comparisons;
}

std::vector<TuneResult> Tuner::tune(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts,
                                    const Sitting& sitting) {
    const std::vector<plan::Role> roles = plan::chosen_roles(problem, request);
    std::vector<TuneResult> results;
    bool is_first = true;
    for (auto role = roles.begin(); role != roles.end(); ++role) {
        const plan::Choices choices = choices_of(results);
        const auto needed = [&](plan::Role one) { return plan::is_needed(problem, request, one, facts, choices); };
        if (!needed(*role)) continue;
        const auto left = static_cast<std::size_t>(std::count_if(role, roles.end(), needed));
        const tuning::Budget budget = sitting.budget.part(left);
        results.push_back({look_up(problem, request, *role, facts), TuneOutcome::recorded});
        TuneResult& result = results.back();
        if (!has_a_choice(result.work.space)) {
            result.outcome = TuneOutcome::one_candidate;
        } else if (is_to_be_measured(result.work, sitting.wanted, sitting.protocol)) {
            // What was looked up before the first takes its time, but not the first itself: a short budget would never
            // come to anything.
            const bool has_time = sitting.budget.total() > 0 && (is_first || budget.total() > 0);
            result = tune_one(case_of(problem, request, *role, facts, choices, sitting.rows), std::move(result.work),
                              sitting, budget, has_time);
            is_first = false;
        }
        if (result.work.near() != nullptr) parts_.log.info(near_text(result.work));
    }
    return results;
}

TuneResult Tuner::tune_one(const MeasuredCase& measured, KnownWork work, const Sitting& sitting,
                           const tuning::Budget& budget, bool has_time) {
    const tuning::RecordName name = work.name;
    const double before = seconds_spent(work);
    TuneResult result{std::move(work), TuneOutcome::out_of_time};
    const auto measure_unless_done = [&] {
        const std::unique_lock lock(measuring_, duration_of(sitting.waiting));
        refresh(result.work);
        // The process that had the lock before may have measured: its choice is for all, even if its time ran out.
        if (!is_to_be_measured(result.work, sitting.wanted, sitting.protocol) || seconds_spent(result.work) > before) {
            result.outcome = TuneOutcome::elsewhere;
        } else if (!has_time || !lock.owns_lock()) {
            result.why = "other kernels used up the time";
        } else {
            result = measure(measured, std::move(result.work), sitting, budget);
        }
    };
    records_.with_lock(name, measure_unless_done,
                       std::chrono::duration_cast<std::chrono::milliseconds>(duration_of(sitting.waiting)));
    return result;
}

TuneResult Tuner::measure(const MeasuredCase& measured, KnownWork work, const Sitting& sitting,
                          const tuning::Budget& budget) {
    // Without a compiler this throws, with the reason.
    if (work.environment.compiler.empty()) static_cast<void>(jit::Nvrtc::instance());
    const MeasuredRows& rows = measured.rows;
    const bool anew = sitting.wanted == Wanted::new_tuning;
    // A complete tuning stays until its successor is complete.
    const bool replaces = anew && work.is_complete();
    tuning::Tuning tuning = anew || work.tuning() == nullptr ? tuning::Tuning{} : *work.tuning();
    tuning.slot = work.slot;
    tuning.environment = work.environment;
    // One that is resumed keeps what is said of its beginning.
    if (tuning.trials.empty()) {
        tuning.workload = {rows.T, rows.callers ? "the caller's" : std::string(tuning::name(rows.skew))};
    }
    // A caller that tunes on purpose knows that it takes time.
    const auto tell = [&](const std::string& line) { rows.callers ? parts_.log.notice(line) : parts_.log.info(line); };
    tell(fmt::format("tuning {} of {}, {}: {} in up to {:.1f} s, and the compiles under way then", work.slot,
                     work.name.problem, util::counted(rows.T, "token"),
                     util::counted(tuning::shortlist(work.space, sitting.protocol.candidates).size(), "candidate"),
                     budget.left()));
    const auto save = [&](const tuning::Tuning& state) {
        tuning.date = now_text();
        if (!replaces || state.complete) static_cast<void>(records_.save(work.name, state));
    };
    tuning::Outcome outcome = tuning::Outcome::out_of_time;
    {
        const std::unique_ptr<tuning::Device> device = parts_.device(measured);
        tuning::Protocol protocol = sitting.protocol;
        protocol.seconds = budget.left();
        protocol.seed = fresh_seed();
        outcome = tuning::measure(*device, work.space, protocol, parts_.threads, tuning, {sitting.progress, save});
        if (outcome == tuning::Outcome::out_of_memory) {
            const tuning::MemoryNeed need = device->memory_need();
            const std::string why =
                fmt::format("operands take {} bytes, and {} may be used", need.fixed_bytes + need.set_bytes,
                            tuning::usable_bytes(protocol, need));
            parts_.log.info(fmt::format("not tuning {} of {}: {}", work.slot, work.name.problem, why));
            return {std::move(work), TuneOutcome::out_of_memory, why};
        }
    }
    {
        const std::lock_guard lock(mutex_);
        made_[{work.name.key(), work.slot}] = tuning;
    }
    refresh(work);
    const bool complete = outcome == tuning::Outcome::complete;
    // The device's memory is given back by now.
    tell(fmt::format("tuned {} of {} in {:.1f} s{}: {}", work.slot, work.name.problem, budget.spent(),
                     complete ? "" : ", incomplete (a later process resumes it)", choice_text(work)));
    return {std::move(work), complete ? TuneOutcome::tuned : TuneOutcome::out_of_time};
}

}  // namespace smlora::autotune
