// The second part of a measurement: comparing what candidates compute with the reference.
#pragma once

#include "tuning/journal.hpp"

#include <cstddef>
#include <set>
#include <vector>

namespace smlora::tuning {

/// With fewer candidates there is nothing to choose from, however long checking takes.
inline constexpr std::size_t fewest = 3;

/// Checks those of `ready`, numbers of trials, that take part, and refuses those that are wrong or take longer than
/// `candidate_seconds`; after `fewest` of them only as long as now() is before `until`. Those that are right.
[[nodiscard]] std::vector<std::size_t> check_candidates(Device& device, Journal& journal,
                                                        const std::set<std::size_t>& ready, double candidate_seconds,
                                                        double until);

}  // namespace smlora::tuning
