// How far a choice is from the best of all candidates.
#pragma once

#include "tuning/tuning.hpp"

#include <cstddef>
#include <optional>

namespace smlora::tuning {

struct Distance {
    std::size_t chosen = 0;  ///< trial
    std::size_t best = 0;    ///< the fastest trial
    double factor = 1;       ///< time of the chosen one over that of the best
    /// Of the factor: three standard errors. Of many candidates that are alike, chance makes one the fastest, so that a
    /// factor within the noise tells of no better choice.
    double noise = 0;
};

/// Of `choice`, else of the heuristic choice, in a tuning that knows every candidate. Nothing when it was not measured
/// there.
[[nodiscard]] std::optional<Distance> distance(const Tuning& all, const std::optional<Configuration>& choice);

}  // namespace smlora::tuning
