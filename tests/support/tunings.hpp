// Tunings as if they had been measured.
#pragma once

#include "autotune/known_work.hpp"
#include "tuning/candidate.hpp"
#include "tuning/tuning.hpp"

#include <cstddef>
#include <functional>
#include <utility>

namespace smlora::test {

/// Complete but for a choice: the first candidates of a piece of work, each with the samples that `samples` gives it.
inline tuning::Tuning measured_tuning(
    const autotune::KnownWork& work,
    const std::function<decltype(tuning::Trial::samples)(const tuning::Candidate&, std::size_t)>& samples) {
    tuning::Tuning tuning;
    tuning.slot = work.slot;
    tuning.environment = work.environment;
    tuning.workload = {64, "uniform"};
    tuning.date = "2026-11-23T00:00:00Z";
    tuning.complete = true;
    for (const tuning::Candidate& candidate : tuning::shortlist(work.space, 24)) {
        tuning::Trial trial;
        trial.candidate = candidate;
        trial.verdict = tuning::Verdict::measured;
        trial.samples = samples(candidate, tuning.trials.size());
        tuning.trials.push_back(std::move(trial));
    }
    return tuning;
}

}  // namespace smlora::test
