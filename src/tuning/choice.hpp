// From samples to a choice: the same samples give the same choice everywhere.
#pragma once

#include "tuning/tuning.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace smlora::tuning {

/// A difference below this is noise however well the samples agree: measured again, on another day, it may be the
/// reverse.
inline constexpr double noise_floor = 0.01;

/// A candidate's time as its samples have it.
struct Estimate {
    double seconds = no_sample;
    /// Standard error, relative. Samples scatter no less than is usual among the trials that have as many or more.
    double noise = 0;
    int samples = 0;  ///< that it rests on
};

/// By trial. Candidates are compared within rounds: a sample counts as its ratio to the one of the yardstick (the first
/// trial that is not refused, so the heuristic choice as a rule) in the same round, which cancels what differs between
/// rounds, as clocks do. The estimate is the median ratio times the yardstick's median. A timing of earlier rounds and
/// the samples since count by their numbers.
[[nodiscard]] std::vector<Estimate> estimates(const std::vector<Trial>& trials);

/// Puts a timing in the place of the samples of each trial, which changes no estimate but by rounding: ratios and
/// deviations to five digits after the point, the yardstick's time to the nanosecond, as records keep them.
void condense(std::vector<Trial>& trials);

struct Judgement {
    std::optional<std::size_t> winner;  ///< nothing when every trial was refused, or none was timed
    std::string reason;                 ///< for people
};

/// The fastest is best; a candidate that is slower than it by no more than the noise (three standard errors of the difference,
/// at least noise_floor; for all but the heuristic choice at most 3 %) ties with it. Of those that tie: the heuristic
/// choice, else the least shared memory, else the first name. Trials with fewer than three samples win only if nobody
/// has more, and those that were dropped as slow never: how slow, one round does not tell.
[[nodiscard]] Judgement judge(const std::vector<Trial>& trials);

/// The fastest and those that tie with it, if more samples may part them: if one of them is slower than it by more than
/// noise_floor; and with the heuristic choice, if its samples do not tell whether it is. Else nothing.
[[nodiscard]] std::vector<std::size_t> undecided(const std::vector<Trial>& trials);

}  // namespace smlora::tuning
