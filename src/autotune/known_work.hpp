// A piece of work with candidates, and what is known of it.
#pragma once

#include "plan/plan.hpp"
#include "tuning/measurement.hpp"
#include "tuning/record_store.hpp"

#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace smlora::autotune {

/// No record serves: the heuristic choice is used.
struct Unmeasured {};

/// A record of this very problem and bucket serves.
struct OwnTuning {
    tuning::Tuning tuning;
    bool is_usable = false;  ///< it has a choice, and that is a legal candidate; else the heuristic choice is used
};

/// With the first two, a tuning of its own may have begun that ended before anything was timed.
using Knowledge = std::variant<Unmeasured, tuning::NearTuning, OwnTuning>;

struct KnownWork {
    plan::Role role = plan::Role::product;
    std::string slot;
    tuning::SearchSpace space;
    tuning::RecordName name;
    tuning::Environment environment;
    std::vector<std::string> relatives;  ///< the problems whose records serve where this one has none
    Knowledge knowledge;
    std::optional<tuning::Tuning> begun = {};  ///< of its own, to be resumed, without a choice yet

    /// Of this very problem and bucket, in part or to the end; null without one.
    [[nodiscard]] const tuning::Tuning* tuning() const;
    /// The tuning that the choice is from, if that is of another problem or number of tokens; else null.
    [[nodiscard]] const tuning::NearTuning* near() const;
    /// The recorded choice if it is legal; nothing: use the heuristic choice.
    [[nodiscard]] std::optional<tuning::Configuration> choice() const;

    [[nodiscard]] bool is_complete() const { return tuning() != nullptr && tuning()->complete; }
    /// Whether the choice was measured to the end for this number of tokens, if with other number types.
    [[nodiscard]] bool is_served() const;
};

/// When a piece of work is to be measured.
enum class Wanted {
    a_choice,       ///< unless it, or what serves it, was tuned to the end
    own_tuning,     ///< unless it was tuned to the end itself
    every_verdict,  ///< unless every candidate on the present list has a verdict
    new_tuning,     ///< always, and from the beginning
};

[[nodiscard]] bool is_to_be_measured(const KnownWork& work, Wanted wanted, const tuning::Protocol& protocol);

}  // namespace smlora::autotune
