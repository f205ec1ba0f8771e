#include "autotune/known_work.hpp"

namespace smlora::autotune {

const tuning::Tuning* KnownWork::tuning() const {
    if (const auto* own = std::get_if<OwnTuning>(&knowledge)) return &own->tuning;
    return begun ? &*begun : nullptr;
}

const tuning::NearTuning* KnownWork::near() const { return std::get_if<tuning::NearTuning>(&knowledge); }

std::optional<tuning::Configuration> KnownWork::choice() const {
    if (const tuning::NearTuning* from = near()) return from->tuning.choice;
    const auto* own = std::get_if<OwnTuning>(&knowledge);
    if (own == nullptr || !own->is_usable) return std::nullopt;
    return own->tuning.choice;
}

bool KnownWork::is_served() const {
    const tuning::NearTuning* from = near();
    return from != nullptr && from->name.bucket == name.bucket && from->tuning.complete;
}

bool is_to_be_measured(const KnownWork& work, Wanted wanted, const tuning::Protocol& protocol) {
    if (wanted == Wanted::new_tuning) return true;
    if (wanted == Wanted::a_choice && work.is_served()) return false;
    if (!work.is_complete()) return true;
    if (wanted == Wanted::every_verdict) return !tuning::covers(*work.tuning(), work.space, protocol);
    // A choice that is not a candidate any more was made for another list of candidates.
    return work.tuning()->choice && !work.choice();
}

}  // namespace smlora::autotune
