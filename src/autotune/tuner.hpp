// Which candidates an engine uses: recorded ones, measured ones, or those that the cost models predict.
#pragma once

#include "gpu/device.hpp"
#include "jit/kernel_spec.hpp"
#include "plan/call_rows.hpp"
#include "plan/chooser.hpp"
#include "plan/plan.hpp"
#include "tune/measurement.hpp"
#include "tune/random_routing.hpp"
#include "tune/record_store.hpp"

#include <smlora/engine.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace smlora::autotune {

/// A piece of work with candidates, and what is known of it.
struct KnownWork {
    plan::Role role = plan::Role::product;
    std::string slot;
    tune::SearchSpace space;
    tune::RecordName name;
    tune::Environment environment;
    std::vector<std::string> relatives;         ///< the problems whose records serve where this one has none
    std::optional<tune::Tuning> tuning;         ///< of this very problem and bucket
    std::optional<tune::NearTuning> near;       ///< without one: where the choice is from instead
    std::optional<tune::Configuration> choice;  ///< recorded and legal; nothing: the heuristic one is to be used

    /// Whether the choice was measured to the end for this number of tokens, if with other number types.
    [[nodiscard]] bool is_served() const;
};

/// When a piece of work is to be measured.
enum class Wanted {
    a_choice,       ///< unless it, or what serves it, was tuned to the end
    own_tuning,     ///< unless it was tuned to the end itself
    every_verdict,  ///< unless nothing on the present list of its candidates is without a verdict
    new_tuning,     ///< always, and from nothing
};

/// What tune() did with a piece of work.
enum class TuneOutcome {
    known,          ///< it was tuned already
    complete,       ///< measured to the end
    out_of_time,    ///< measured in part
    out_of_memory,  ///< operands do not fit the memory budget
    elsewhere,      ///< another process tuned it meanwhile, perhaps in part
    no_choice,      ///< there is only one candidate
};

struct TuneResult {
    KnownWork work;
    TuneOutcome outcome = TuneOutcome::known;
    std::string why = {};  ///< nothing was measured although it was wanted
};

/// What is known of a piece of work, beside a measurement of every legal candidate.
struct Comparison {
    KnownWork work;
    tune::Tuning all;
};

/// Thread-safe.
class Tuner final : public plan::Chooser {
 public:
    /// `engine` must outlive it, and have its options, log, cache, kernels and threads made before.
    explicit Tuner(Engine::Impl& engine);

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

    /// Measures the pieces of work of a request, whatever the policy, on rows drawn from `skew`. `protocol.seconds` are
    /// for all of them together.
    std::vector<TuneResult> tune(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts,
                                 std::int64_t T, tune::Skew skew, const tune::Protocol& protocol, Wanted wanted,
                                 const std::function<void(const tune::Progress&)>& progress);

    /// What tune() of a request would compile with this protocol, best predictions first, without what it would take
    /// from records. Needs no GPU, and may run beside tune().
    [[nodiscard]] std::vector<jit::KernelSpec> kernels_to_try(const Problem& problem, const plan::Request& request,
                                                              const gpu::DeviceFacts& facts,
                                                              const tune::Protocol& protocol, Wanted wanted);

    /// First use tries no more candidates, and takes no more samples of each: for where the usual numbers take too
    /// long, as on an emulated GPU. Before the first call.
    void limit_first_use(std::size_t candidates, int rounds);

    /// Measures every legal candidate of the pieces of work of a request, however long it takes and whatever is
    /// recorded, and records nothing.
    std::vector<Comparison> compare(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts,
                                    std::int64_t T, tune::Skew skew, tune::Protocol protocol,
                                    const std::function<void(const tune::Progress&)>& progress);

    /// 64 random bits for the inputs of a tuning.
    [[nodiscard]] static std::uint64_t fresh_seed();

 private:
    struct Rows {
        std::optional<plan::CallRows> callers;
        CUstream stream = nullptr;
        std::int64_t T = 1;
        tune::Skew skew = tune::Skew::uniform;
    };
    [[nodiscard]] KnownWork look_up(const Problem& problem, const plan::Request& request, plan::Role role,
                                    const gpu::DeviceFacts& facts);
    void refresh(KnownWork& work);
    /// What an operation may take of a problem's budget.
    double first_use_seconds(const std::string& account, const Problem& problem, const plan::Request& request);
    /// `spent` grows by the seconds that measuring took; waiting for who measures the same is not among them.
    std::vector<TuneResult> tune_missing(const Problem& problem, const plan::Request& request,
                                         const gpu::DeviceFacts& facts, const Rows& rows,
                                         const tune::Protocol& protocol, Wanted wanted,
                                         const std::function<void(const tune::Progress&)>& progress,
                                         plan::Choices& choices, double& spent);
    void measure(const Problem& problem, const plan::Request& request, const Rows& rows, const plan::Choices& others,
                 const tune::Protocol& protocol, bool anew, const std::function<void(const tune::Progress&)>& progress,
                 TuneResult& result, double& spent);

    Engine::Impl& engine_;
    TuningPolicy policy_;
    tune::RecordStore records_;
    tune::Protocol first_use_;  ///< but for seconds and memory
    std::mutex measuring_;      // one measurement at a time: they would disturb each other
    std::mutex mutex_;
    /// Tuned by this engine, by the key of the record and the slot: for when records cannot be stored.
    std::map<std::pair<std::string, std::string>, tune::Tuning> made_;
    /// Of first use, by the key of the record: its budget is for all operations on a problem and bucket together.
    struct Account {
        double spent = 0;
        std::set<std::size_t> operations;  ///< that have asked
    };
    std::map<std::string, Account> accounts_;
};

/// That of an engine.
[[nodiscard]] Tuner& tuner_of(const Engine& engine);

}  // namespace smlora::autotune
