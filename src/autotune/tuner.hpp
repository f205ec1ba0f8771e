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
#include <optional>
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
    std::string why = {};  ///< why nothing was measured although it was wanted
};

/// What is known of a piece of work, next to a measurement of every legal candidate.
struct Comparison {
    KnownWork work;
    tuning::Tuning all;
};

/// One attempt to tune the pieces of work of a request.
struct Sitting {
    MeasuredRows rows;
    tuning::Budget budget;      ///< for all of them together, lookups and compiles included
    tuning::Budget waiting;     ///< how long to wait for another process that measures the same
    tuning::Protocol protocol;  ///< except its seconds and its seed
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
    /// `engine` must outlive it. Its options, log, cache, kernels and threads must exist.
    explicit Tuner(Engine::Impl& engine);
    explicit Tuner(TunerParts parts);

    /// By records, as far as the policy allows; measures nothing. Needs no GPU.
    [[nodiscard]] plan::Choices known(const Problem& problem, const plan::Request& request,
                                      const gpu::DeviceFacts& facts) override;

    [[nodiscard]] Recorded recorded(const Problem& problem, const plan::Request& request,
                                    const gpu::DeviceFacts& facts) override;

    /// As known(), but with first_use what is not recorded is measured, on the rows of the call, which are valid on
    /// `stream`. A measurement that fails throws nothing: the choice is then the one without it.
    [[nodiscard]] plan::Choices choose(const Problem& problem, const plan::Request& request,
                                       const gpu::DeviceFacts& facts, const plan::CallRows& rows,
                                       CUstream stream) override;

    /// What is known of each piece of work of a request, in the order of chosen_roles; those that the plan with the
    /// known choices does not need are left out.
    [[nodiscard]] std::vector<KnownWork> look_up(const Problem& problem, const plan::Request& request,
                                                 const gpu::DeviceFacts& facts);

    /// Why the records of a piece of work do not hold here; empty if there are none.
    [[nodiscard]] std::string why_unfit(const KnownWork& work);

    /// Measures the pieces of work of a request, whatever the policy.
    std::vector<TuneResult> tune(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts,
                                 const Sitting& sitting);

    /// What tune() of a request would compile with this protocol, the best predictions first; nothing for work whose
    /// records it would use. Needs no GPU, and may run beside tune().
    [[nodiscard]] std::vector<jit::KernelSpec> kernels_to_try(const Problem& problem, const plan::Request& request,
                                                              const gpu::DeviceFacts& facts,
                                                              const tuning::Protocol& protocol, Wanted wanted);

    /// First use tries no more candidates than that, and takes no more samples of each: where the usual numbers take
    /// too long, as on an emulated GPU. To be called before the first operation.
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
    /// What is measured of a piece of work, beside the choices for those before it. The product of what is unpacked is
    /// that of plain weights; to unpack is tried with what is known of it.
    [[nodiscard]] MeasuredCase case_of(const Problem& problem, const plan::Request& request, plan::Role role,
                                       const gpu::DeviceFacts& facts, plan::Choices choices, const MeasuredRows& rows);
    void refresh(KnownWork& work);
    /// Its choice. In batch-invariant mode the one that was taken first: another process may record another meanwhile.
    [[nodiscard]] std::optional<tuning::Configuration> kept(const KnownWork& work);
    /// Measures one that is not known, unless another process does so meanwhile, or there is no time.
    [[nodiscard]] TuneResult tune_one(const MeasuredCase& measured, KnownWork work, const Sitting& sitting,
                                      const tuning::Budget& budget, bool has_time);
    /// Measures one whatever is known.
    [[nodiscard]] TuneResult measure(const MeasuredCase& measured, KnownWork work, const Sitting& sitting,
                                     const tuning::Budget& budget);

    TunerParts parts_;
    TuningPolicy policy_;
    tuning::RecordStore records_;
    StepBudgets steps_;
    tuning::Protocol first_use_;  ///< except seconds and memory
    std::timed_mutex measuring_;  // one measurement at a time: they would disturb each other
    std::mutex mutex_;
    /// What this engine has tuned, by the key of the record and the slot: used when records cannot be stored.
    std::map<std::pair<std::string, std::string>, tuning::Tuning> made_;
    /// What batch-invariant calls have, by the same keys; nothing: the heuristic choice.
    std::map<std::pair<std::string, std::string>, std::optional<tuning::Configuration>> kept_;
};

/// That of an engine.
[[nodiscard]] Tuner& tuner_of(const Engine& engine);

}  // namespace smlora::autotune
