// From samples to a choice: the same samples give the same choice everywhere.
#pragma once

#include "tuning/tuning.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace smlora::tuning {

/// A difference below this is noise however well the samples agree: another day's measurement
/// may reverse it.
inline constexpr double noise_floor = 0.01;

/// A candidate's time by its samples.
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

/// Replaces the samples of each trial by a timing. Estimates change by rounding alone: ratios and deviations have five
/// digits after the point, and the yardstick's time is in whole nanoseconds, as in records.
void condense(std::vector<Trial>& trials);

struct Judgement {
    std::optional<std::size_t> winner;  ///< nothing when every trial was refused, or none was timed
    std::string reason;                 ///< for people
};

/// A candidate ties with the fastest if it is slower by no more than the noise: three standard errors of the
/// difference, at least noise_floor, and at most 3 % unless it is the heuristic choice. Of those that tie the heuristic
/// choice wins, else the one with the least shared memory, else the first name. A trial with fewer than three samples
/// wins only if none has more. One that was dropped as slow never wins: one round does not tell how slow it is.
[[nodiscard]] Judgement judge(const std::vector<Trial>& trials);

/// The trials that more samples may part: the fastest and those that tie with it, if one of these is slower by more
/// than noise_floor; the heuristic choice with them, if its samples do not tell whether it is. Else nothing.
[[nodiscard]] std::vector<std::size_t> undecided(const std::vector<Trial>& trials);

}  // namespace smlora::tuning
