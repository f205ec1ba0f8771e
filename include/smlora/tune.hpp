// Tuning on purpose: measuring which kernels are the fastest for a problem, before the job that needs them.
#pragma once

#include <smlora/engine.hpp>
#include <smlora/problem.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smlora {

/// How the tokens that candidates are measured on choose their experts.
enum class TuneSkew : std::int32_t {
    uniform = 0,  ///< every expert alike
    zipf = 1,     ///< the n-th most popular expert with weight 1 / n, roughly as trained routers are
    one = 2,      ///< everything to one expert: the worst balance there is
};

/// What tune() did with a piece of work: a part of an operation that several kernels can do.
enum class TuneOutcome : std::int32_t {
    recorded = 0,       ///< it was tuned already
    tuned = 1,          ///< measured to the end
    out_of_time = 2,    ///< measured in part, or not at all; the next call resumes
    out_of_memory = 3,  ///< operands do not fit the memory budget
    elsewhere = 4,      ///< another process tuned it meanwhile, perhaps in part
    one_candidate = 5,  ///< there is nothing to choose from
};

/// "recorded", "tuned", "out of time", "out of memory", "tuned elsewhere", "one candidate".
[[nodiscard]] SMLORA_API std::string_view name(TuneOutcome outcome);

/// How far one piece of work is; called from one thread at a time. The strings live as long as the call.
struct TuneProgress {
    std::int64_t tokens = 0;  ///< the number of tokens of TuneOptions::tokens that is measured
    std::string_view work;    ///< as TunedWork::work
    std::string_view phase;   ///< "compiling", "checking", "timing"
    std::size_t done = 0;     ///< kernels, results or samples of this phase
    std::size_t total = 0;    ///< how many `done` will be
    std::string_view best;    ///< the candidate that leads; empty before there is one
    double best_seconds = 0;  ///< its median; 0 before there is one
};

/// What tune() measures, and for how long.
struct TuneOptions {
    /// Numbers of tokens, each at least 1. One stands for all that round to the same power of two. Empty: 1024 to 65536
    /// in powers of two.
    std::vector<std::int64_t> tokens = {};
    /// For one number of tokens, everything included; above 0. Passed by one kernel's compile at most.
    double seconds = 60;
    /// Of device memory for operands, above 0. Unset: half of what is free.
    std::optional<std::uint64_t> memory_bytes = {};
    /// Best predictions that are tried for each piece of work, at least 1. Unset: 24 for what is not tuned yet. Set:
    /// those among so many that a complete record lacks are measured, too.
    std::optional<std::int32_t> candidates = {};
    /// Samples of each candidate, at least 1; of those that are the fastest but for noise up to three times as many.
    std::int32_t rounds = 9;
    TuneSkew skew = TuneSkew::uniform;  ///< of the rows that candidates are measured on
    bool again = false;                 ///< measure what is recorded, too, and replace it when that is done
    /// May be empty. False: stop after this; what was measured is recorded. What it throws passes through.
    std::function<bool(const TuneProgress&)> progress = {};
};

/// One piece of work at one number of tokens.
struct TunedWork {
    std::int64_t tokens = 0;                      ///< the number of TuneOptions::tokens that it was asked for
    std::string work;                             ///< "forward", "xa", "dx", "yb", "gradients" and so on
    TuneOutcome outcome = TuneOutcome::recorded;  ///< what tune() did with it
    bool complete = false;                        ///< nothing is left to be measured
    std::string routing;        ///< of the rows that it was measured on: a skew's name, or "the caller's" of first use
    std::string choice;         ///< the candidate that operations use from now on; empty: the heuristic choice
    std::string reason;         ///< why this one, or why nothing was measured
    double median_seconds = 0;  ///< of the choice; 0 when nothing was timed
    double seconds = 0;         ///< spent on it so far, by all processes
    std::string record;         ///< the key of its record in the cache

    /// There is something to choose from, and more time or memory would bring a measured choice.
    [[nodiscard]] bool lacks_choice() const {
        return outcome != TuneOutcome::one_candidate && !complete && median_seconds == 0;
    }
};

/// What tune() did.
struct TuneReport {
    std::vector<TunedWork> works;  ///< none where each operation has one kernel, as for fp32
    double seconds = 0;            ///< what the call took
    bool stopped = false;          ///< by `progress`; operations that were not finished are not among the works
};

/// Measures the candidates of forward, backward_input and backward_lora on the GPU of the calling thread's context, or
/// the engine's, and records the choices in the engine's cache, whatever the engine's policy. Rows, weights and
/// adapters are made up and live in memory of the library's own, which the system has back afterwards; rows are 16-byte
/// aligned. What is recorded already is not measured again, and what was interrupted is resumed. Plans that this engine
/// has made keep their kernels: tune before the first call, or in another process. Several processes may tune the same
/// problem: each piece of work is measured by one of them. Not while a stream of this thread captures a graph.
///
/// Throws Error{unsupported} with the CPU backend, which has one kernel for each operation; Error{invalid_argument} for
/// a wrong problem or option; Error{no_device} without a GPU; Error{compile} without NVRTC; Error{cuda} when a
/// candidate faults, which is refused the second time.
SMLORA_API TuneReport tune(const Engine& engine, const Problem& problem, const TuneOptions& options = {});

}  // namespace smlora
