// What is known of one piece of work after its candidates were tried, wholly or in part.
#pragma once

#include "tuning/candidate.hpp"
#include "tuning/environment.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace smlora::tuning {

/// What became of a candidate.
enum class Verdict {
    pending,   ///< not tried to the end yet
    refused,   ///< does not compile, spills, is wrong, or takes too long: see Trial::why
    slow,      ///< dropped after its first round, as twice as slow as the best or slower
    measured,  ///< has all its samples
    running,   ///< of a record only: on the device when it was written, and still so if the process did not live on
};

inline constexpr double no_sample = std::numeric_limits<double>::quiet_NaN();

/// What all samples of a candidate come to, once there is no more to be made of them.
struct Timing {
    double unit_seconds = 0;  ///< the yardstick's median time
    double ratio = 0;         ///< the candidate's time by that of the yardstick, the median over rounds
    double deviation = 0;     ///< of that ratio from round to round: the standard one, relative
    int samples = 0;

    [[nodiscard]] double seconds() const { return ratio * unit_seconds; }

    friend bool operator==(const Timing&, const Timing&) = default;
};

struct Trial {
    Candidate candidate;
    Verdict verdict = Verdict::pending;
    std::string why;             ///< of a refusal; while pending, of the first of two failures
    std::int64_t registers = 0;  ///< a thread's
    std::int64_t spill_bytes = 0;
    double compile_seconds = 0;
    double error = 0;              ///< against the reference, see Verification
    double spent_seconds = 0;      ///< on checking and timing it
    std::optional<Timing> timing;  ///< of when its tuning was last complete, see condense()
    std::vector<double> samples;   ///< since then: seconds, by round; no_sample where it took no part

    [[nodiscard]] double sample(std::size_t round) const { return round < samples.size() ? samples[round] : no_sample; }
    /// How often it was timed.
    [[nodiscard]] int taken() const;
};

/// Where the rows of a measurement came from, and how many.
struct Workload {
    std::int64_t tokens = 0;
    std::string routing;  ///< "the caller's", "uniform", ..
};

struct Tuning {
    std::string slot;  ///< which piece of work of the problem: "forward", "dx", ..
    Environment environment;
    Workload workload;
    std::string date;           ///< of the last measurement, UTC, "2026-11-23T10:11:12Z"
    std::uint64_t seed = 0;     ///< of the inputs that candidates were checked on; 0: not known any more
    double seconds = 0;         ///< spent so far
    bool complete = false;      ///< every candidate on the short list has its verdict, and runoffs are over
    std::vector<Trial> trials;  ///< the first is the heuristic choice
    /// Of all that is known so far; nothing when no candidate was right.
    std::optional<Configuration> choice;
};

}  // namespace smlora::tuning
