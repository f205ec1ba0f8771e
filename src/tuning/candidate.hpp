// One way to do a piece of work, before it has been tried.
#pragma once

#include "tuning/configuration.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace smlora::tuning {

struct Candidate {
    std::string name;  ///< for people, unique in its search space; the last resort of a tie
    Configuration configuration;
    double predicted_seconds = 0;   ///< by the family's cost model
    std::int64_t shared_bytes = 0;  ///< dynamic shared memory of a block
    std::string refusal;            ///< why it cannot run on this device; empty: it can

    [[nodiscard]] bool legal() const { return refusal.empty(); }
};

/// Every candidate for a piece of work, legal or not, in the order of the families' lists.
using SearchSpace = std::vector<Candidate>;

/// What is used when nothing was measured: the legal candidate with the least predicted time, the first of equals.
/// Nothing when none is legal.
[[nodiscard]] std::optional<std::size_t> heuristic_choice(const SearchSpace& space);

/// The legal candidates, those that are predicted to be fastest first, so that the heuristic choice leads.
[[nodiscard]] std::vector<Candidate> legal(const SearchSpace& space);

/// The at most `count` legal candidates that are predicted to be fastest, fastest first, so that the heuristic choice
/// leads; without those that are predicted to take more than twice its time.
[[nodiscard]] std::vector<Candidate> shortlist(const SearchSpace& space, std::size_t count);

/// The legal candidate that has this configuration; null if there is none.
[[nodiscard]] const Candidate* find_legal(const SearchSpace& space, const Configuration& configuration);

}  // namespace smlora::tuning
