// Which candidates an engine uses: recorded ones, measured ones, or those that the cost models predict.
#pragma once

#include "autotune/known_work.hpp"
#include "autotune/measured_case.hpp"
#include "autotune/step_budgets.hpp"
#include "gpu/device.hpp"
#include "jit/kernel_spec.hpp"
#include "plan/call_rows.hpp"
#include "plan/chooser.hpp"
#include "plan/plan.hpp"
#include "tuning/budget.hpp"
#include "tuning/measurement.hpp"
#include "tuning/record_store.hpp"

#include <smlora/engine.hpp>
#include <smlora/tune.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace smlora::cache {
class Cache;
}
namespace smlora::jit {
class KernelLibrary;
}
namespace smlora::util {
class Logger;
class ThreadPool;
}  // namespace smlora::util

namespace smlora::autotune {

/// What a sitting did with a piece of work.
struct TuneResult {
    KnownWork work;
    TuneOutcome outcome = TuneOutcome::recorded;
    std::string why = {};  ///< nothing was measured although it was wanted
};

/// What is known of a piece of work, beside a measurement of every legal candidate.
struct Comparison {
    KnownWork work;
    tuning::Tuning all;
};

/// One go at the pieces of work of a request.
struct Sitting {
    MeasuredRows rows;
    tuning::Budget budget;      ///< for all of them together: the lookups, the compiles and whatever else
    tuning::Budget waiting;     ///< another process that measures the same is waited for as long as this lasts
    tuning::Protocol protocol;  ///< but for its seconds and its seed
    Wanted wanted = Wanted::a_choice;
    std::function<void(const tuning::Progress&)> progress = {};
};

/// What a tuner works with. All of it must outlive the tuner.
struct TunerParts {
    const EngineOptions& options;
    util::Logger& log;
    cache::Cache& cache;
    jit::KernelLibrary& kernels;
    util::ThreadPool& threads;
    DeviceFactory device;
    tuning::Clock clock;
};

/// Thread-safe.
class Tuner final : public plan::Chooser {
 public:
    /// `engine` must outlive it, and have its options, log, cache, kernels and threads made before.
    explicit Tuner(Engine::Impl& engine);
    explicit Tuner(TunerParts parts);

    /// By records, as far as the policy allows; measures nothing. Needs no GPU.
    [[nodiscard]] plan::Choices known(const Problem& problem, const plan::Request& request,
                                      const gpu::DeviceFacts& facts) override;

    /// The same, but with first_use what is not recorded is measured, on the rows of the call, which are valid on
    /// `stream`. Never throws for a measurement that fails: then the choice is the one without it.
    [[nodiscard]] plan::Choices choose(const Problem& problem, const plan::Request& request,
                                       const gpu::DeviceFacts& facts, const plan::CallRows& rows,
                                       CUstream stream) override;

    /// What is known of each piece of work of a request, in the order of chosen_roles; those that the plan with the
    /// known choices does not need are left out.
    [[nodiscard]] std::vector<KnownWork> look_up(const Problem& problem, const plan::Request& request,
                                                 const gpu::DeviceFacts& facts);

    /// Why what is recorded of a piece of work does not hold here; empty without such a record.
    [[nodiscard]] std::string why_unfit(const KnownWork& work);

    /// Measures the pieces of work of a request, whatever the policy.
    std::vector<TuneResult> tune(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts,
                                 const Sitting& sitting);

    /// What tune() of a request would compile with this protocol, best predictions first, without what it would take
    /// from records. Needs no GPU, and may run beside tune().
    [[nodiscard]] std::vector<jit::KernelSpec> kernels_to_try(const Problem& problem, const plan::Request& request,
                                                              const gpu::DeviceFacts& facts,
                                                              const tuning::Protocol& protocol, Wanted wanted);

    /// First use tries no more candidates, and takes no more samples of each: for where the usual numbers take too
    /// long, as on an emulated GPU. Before the first call.
    void limit_first_use(std::size_t candidates, int rounds);

    /// Measures every legal candidate of the pieces of work of a request, however long it takes and whatever is
    /// recorded, and records nothing.
    std::vector<Comparison> compare(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts,
                                    const MeasuredRows& rows, tuning::Protocol protocol,
                                    const std::function<void(const tuning::Progress&)>& progress);

    [[nodiscard]] const tuning::Clock& clock() const { return parts_.clock; }

    /// 64 random bits for the inputs of a tuning.
    [[nodiscard]] static std::uint64_t fresh_seed();

 private:
    [[nodiscard]] KnownWork look_up(const Problem& problem, const plan::Request& request, plan::Role role,
                                    const gpu::DeviceFacts& facts);
    void refresh(KnownWork& work);
    /// Of one that is not known, unless another process measures it meanwhile, or there is no time.
    [[nodiscard]] TuneResult tune_one(const MeasuredCase& measured, KnownWork work, const Sitting& sitting,
                                      const tuning::Budget& budget, bool has_time);
    /// Of one that this process measures, whatever is known.
    [[nodiscard]] TuneResult measure(const MeasuredCase& measured, KnownWork work, const Sitting& sitting,
                                     const tuning::Budget& budget);

    TunerParts parts_;
    TuningPolicy policy_;
    tuning::RecordStore records_;
    StepBudgets steps_;
    tuning::Protocol first_use_;    ///< but for seconds and memory
    std::timed_mutex measuring_;  // one measurement at a time: they would disturb each other
    std::mutex mutex_;
    /// Tuned by this engine, by the key of the record and the slot: for when records cannot be stored.
    std::map<std::pair<std::string, std::string>, tuning::Tuning> made_;
};

/// That of an engine.
[[nodiscard]] Tuner& tuner_of(const Engine& engine);

}  // namespace smlora::autotune
