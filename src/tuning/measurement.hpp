// The protocol by which candidates become a choice.
//
// The shortest predictions are compiled concurrently, best first. Those that spill registers are refused, and those
// whose result differs from the reference's. The rest is timed in rounds: one sample of each candidate a round, in an
// order that rotates, with operands that rotate through more than three times the L2 cache if memory allows, on the
// rows of that round. A candidate that takes twice the best time in its first round is timed again, and dropped if it
// still does. Those that are the fastest but for noise, and the heuristic choice while its samples do not tell whether
// it is one of them, then run as many rounds more, in up to two runoffs. When time runs out, what is known stays, and
// the next call resumes from it.
#pragma once

#include "tuning/device.hpp"
#include "tuning/tuning.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace smlora::util {
class ThreadPool;
}

namespace smlora::tuning {

/// Which candidates are tried.
enum class Breadth {
    likely,  ///< the best predictions; those that prove to be far behind are dropped
    all,     ///< every one that is legal, to the end, however long it takes: what a choice can be compared with
};

struct Protocol {
    Breadth breadth = Breadth::likely;
    /// From the call to its return, compiling included. Passed by one kernel's compile at most: a kernel is begun only
    /// if it will end in time, but for the first. Where nothing but the heuristic choice gets compiled, nothing is
    /// timed. Of what is compiled three candidates are checked and timed once, a fraction of a second on a GPU.
    double seconds = 10;
    std::optional<std::uint64_t> memory_bytes;  ///< for operands; unset: an eighth of what is free
    double candidate_seconds = 2;               ///< for checking and timing one candidate; a kernel is not interrupted
    std::size_t candidates = 24;                ///< of Breadth::likely
    int rounds = 9;
    int runoffs = 2;         ///< at most, of as many rounds each, among those that are the fastest but for noise
    std::uint64_t seed = 0;  ///< of the inputs to check on
};

/// How far a tuning is.
struct Progress {
    std::string_view slot;
    std::string_view phase;  ///< "compiling", "checking", "timing"
    std::size_t done = 0;
    std::size_t total = 0;
    std::string_view best;  ///< name of the candidate that leads; empty before there is one
    double best_seconds = 0;
};

/// Each may be empty. `save` is called with what is known whenever something is, a few times a second at most, and at
/// the end, also when that is an exception. Calls do not overlap.
struct Observer {
    std::function<void(const Progress&)> progress = {};
    std::function<void(const Tuning&)> save = {};
};

enum class Outcome {
    complete,
    out_of_time,    ///< what was measured is in the tuning; a further call resumes from there
    out_of_memory,  ///< not one set of operands fits the budget: nothing was tried
};

/// Of the device's memory, for operands.
[[nodiscard]] std::uint64_t usable_bytes(const Protocol& protocol, const MemoryNeed& need);

/// Whether `tuning` has a verdict on everything that would be tried: nothing is left to measure.
[[nodiscard]] bool covers(const Tuning& tuning, const SearchSpace& space, const Protocol& protocol);

/// Tries what `tuning` does not know of `space` yet, and sets its trials, choice, seconds and completeness. Verdicts
/// that it has are kept; candidates that are not in the space any more are forgotten. The heuristic choice takes part
/// in every round, as the yardstick. Compiles on `threads`. What the device throws passes through after the tuning was
/// brought up to date.
Outcome measure(Device& device, const SearchSpace& space, const Protocol& protocol, util::ThreadPool& threads,
                Tuning& tuning, const Observer& observer = {});

}  // namespace smlora::tuning
