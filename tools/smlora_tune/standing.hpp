// How each candidate for a kernel compares with the one that is used, and why.
#pragma once

#include "autotune/tuner.hpp"
#include "tuning/candidate.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace smlora::tool {

enum class Standing {
    used_as_predicted,  ///< without a record
    used_as_recorded,   ///< by the record of another problem or number of tokens
    used_as_judged,     ///< by the record of this one
    refused,            ///< cannot run, or did not compile or compute right
    dropped,            ///< slow in its first round
    slower,
    tied,
    slower_so_far,  ///< with samples still to come, as below
    tied_so_far,
    untimed,
    unlisted,          ///< the record is of other candidates
    unpromising,       ///< without a record: not on the list of those that would be tried
    predicted_slower,  ///< without a record
    predicted_slower_elsewhere,
};

/// "used", "lost", "slow", "refused", "not tried", "pending".
[[nodiscard]] std::string_view word(Standing standing);

/// Those that were not tried, of which there are many.
[[nodiscard]] bool is_untried(Standing standing);

struct Line {
    tuning::Candidate candidate;
    double measured_seconds = 0;  ///< 0: not measured
    double noise = 0;
    Standing standing = Standing::untimed;
    std::string why;  ///< a sentence
};

/// A line for each candidate: the one that is used, then the others from fast to slow, those that are refused last.
[[nodiscard]] std::vector<Line> standings(const autotune::KnownWork& work, const tuning::Configuration& used);

}  // namespace smlora::tool
