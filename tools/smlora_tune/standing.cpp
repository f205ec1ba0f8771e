#include "smlora_tune/standing.hpp"

#include "tuning/choice.hpp"
#include "tuning/measurement.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <tuple>

namespace smlora::tool {
namespace {

/// The sentence may hold {reason}, {ratio} to the time of the choice, and {count} of candidates.
struct Row {
    Standing standing;
    std::string_view word;
    std::string_view sentence;
};

constexpr Row standings[] = {
    {Standing::used_as_predicted, "used", "predicted to be the fastest"},
    {Standing::used_as_recorded, "used", "the choice of the record that is used here"},
    {Standing::used_as_judged, "used", "{reason}"},
    {Standing::refused, "refused", "{reason}"},
    {Standing::dropped, "slow", "at least twice the time of the best, dropped after its first round"},
    {Standing::slower, "lost", "{ratio:.3f} times the time of the choice"},
    {Standing::tied, "lost", "{ratio:.3f} times the time of the choice, within the noise"},
    {Standing::slower_so_far, "pending", "{ratio:.3f} times the time of the choice"},
    {Standing::tied_so_far, "pending", "{ratio:.3f} times the time of the choice, within the noise"},
    {Standing::untimed, "pending", "not measured yet"},
    {Standing::unlisted, "not tried", "not among the {count} that were tried"},
    {Standing::unpromising, "not tried", "not among the {count} that are predicted to be fastest"},
    {Standing::predicted_slower, "lost", "predicted to take {ratio:.2f} times as long"},
    {Standing::predicted_slower_elsewhere, "lost", "not measured here, predicted to take {ratio:.2f} times as long"},
};

const Row& row_of(Standing standing) {
    for (const Row& row : standings) {
        if (row.standing == standing) return row;
    }
    throw std::logic_error("standing: no such one");
}

/// What is known of all candidates for a kernel together.
class Field {
 public:
    Field(const autotune::KnownWork& work, const tuning::Configuration& used)
        : work_(work),
          trials_(work.tuning() != nullptr ? work.tuning()->trials : std::vector<tuning::Trial>{}),
          times_(tuning::estimates(trials_)),
          tried_(tuning::shortlist(work.space, tuning::Protocol{}.candidates)),
          used_(tuning::find_legal(work.space, used)) {
        if (used_ == nullptr) return;
        if (const auto trial = trial_of(*used_)) used_seconds_ = times_[*trial].seconds;
    }

    [[nodiscard]] Line line(const tuning::Candidate& candidate) const {
        const std::optional<std::size_t> trial = trial_of(candidate);
        Line line{candidate, 0, 0, Standing::untimed, ""};
        if (trial && times_[*trial].samples > 0) {
            line.measured_seconds = times_[*trial].seconds;
            line.noise = times_[*trial].noise;
        }
        const double ratio =
            line.measured_seconds > 0 ? line.measured_seconds / used_seconds_ : predicted_ratio(candidate);
        line.standing = standing(candidate, trial, line.measured_seconds > 0 && used_seconds_ > 0, ratio);
        line.why = fmt::format(fmt::runtime(row_of(line.standing).sentence),
                               fmt::arg("reason", reason(line.standing, candidate, trial)), fmt::arg("ratio", ratio),
                               fmt::arg("count", trials_.empty() ? tried_.size() : trials_.size()));
        return line;
    }

 private:
    [[nodiscard]] Standing standing(const tuning::Candidate& candidate, std::optional<std::size_t> trial, bool timed,
                                    double ratio) const {
        if (&candidate == used_) {
            if (!work_.choice()) return Standing::used_as_predicted;
            return work_.near() != nullptr ? Standing::used_as_recorded : Standing::used_as_judged;
        }
        if (!candidate.legal()) return Standing::refused;
        if (!trial) {
            if (!trials_.empty()) return Standing::unlisted;
            if (!is_listed(candidate)) return Standing::unpromising;
            return work_.near() != nullptr ? Standing::predicted_slower_elsewhere : Standing::predicted_slower;
        }
        const tuning::Verdict verdict = trials_[*trial].verdict;
        if (verdict == tuning::Verdict::refused) return Standing::refused;
        if (verdict == tuning::Verdict::slow) return Standing::dropped;
        if (!timed) return Standing::untimed;
        if (verdict == tuning::Verdict::measured) return ratio > 1 ? Standing::slower : Standing::tied;
        return ratio > 1 ? Standing::slower_so_far : Standing::tied_so_far;
    }

    [[nodiscard]] std::string reason(Standing standing, const tuning::Candidate& candidate,
                                     std::optional<std::size_t> trial) const {
        if (standing == Standing::used_as_judged) return tuning::judge(trials_).reason;
        if (standing != Standing::refused) return "";
        return candidate.legal() && trial ? trials_[*trial].why : candidate.refusal;
    }

    [[nodiscard]] std::optional<std::size_t> trial_of(const tuning::Candidate& candidate) const {
        for (std::size_t i = 0; i < trials_.size(); ++i) {
            if (trials_[i].candidate.configuration == candidate.configuration) return i;
        }
        return std::nullopt;
    }

    [[nodiscard]] bool is_listed(const tuning::Candidate& candidate) const {
        return std::any_of(tried_.begin(), tried_.end(),
                           [&](const tuning::Candidate& one) { return one.configuration == candidate.configuration; });
    }

    [[nodiscard]] double predicted_ratio(const tuning::Candidate& candidate) const {
        return used_ == nullptr ? 0 : candidate.predicted_seconds / used_->predicted_seconds;
    }

    const autotune::KnownWork& work_;
    const std::vector<tuning::Trial> trials_;
    const std::vector<tuning::Estimate> times_;
    const std::vector<tuning::Candidate> tried_;
    const tuning::Candidate* const used_;  // in the space of work_
    double used_seconds_ = 0;              // measured; 0: not
};

}  // namespace

std::string_view word(Standing standing) { return row_of(standing).word; }

bool is_untried(Standing standing) { return standing == Standing::unlisted || standing == Standing::unpromising; }

std::vector<Line> standings(const autotune::KnownWork& work, const tuning::Configuration& used) {
    const Field field(work, used);
    std::vector<Line> lines;
    for (const tuning::Candidate& candidate : work.space) lines.push_back(field.line(candidate));
    std::stable_sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) {
        const auto rank = [](const Line& line) {
            const bool is_measured = line.measured_seconds > 0;
            return std::tuple(word(line.standing) != "used", line.standing == Standing::refused, !is_measured,
                              is_measured ? line.measured_seconds : line.candidate.predicted_seconds);
        };
        return rank(a) < rank(b);
    });
    return lines;
}

}  // namespace smlora::tool
