#include "tuning/checking.hpp"

#include <algorithm>
#include <cmath>

namespace smlora::tuning {
namespace {

/// Why it cannot be used after all; empty: it can.
std::string refusal_of(const Verification& verification, double took, double candidate_seconds, bool is_yardstick) {
    if (!verification.refusal.empty()) return verification.refusal;
    if (!std::isfinite(verification.error)) return "its result or the reference's is not finite";
    if (took <= candidate_seconds || is_yardstick) return {};
    return fmt::format("took {:.2f} s to check, and {:.2f} s are for one candidate", took, candidate_seconds);
}

}  // namespace

std::vector<std::size_t> check_candidates(Device& device, Journal& journal, const std::set<std::size_t>& ready,
                                          double candidate_seconds, double until) {
    std::vector<Trial>& trials = journal.trials();
    std::vector<std::size_t> right;
    std::size_t checked = 0;
    for (const std::size_t i : ready) {
        if (!takes_part(trials, i)) continue;
        if (checked >= fewest && device.now() >= until) break;
        Trial& trial = trials[i];
        const double before = device.now();
        const Verification verification = journal.guarded(trial, [&] { return device.verify(trial.candidate); });
        const double took = device.now() - before;
        trial.spent_seconds += took;
        trial.error = std::isfinite(verification.error) ? verification.error : 1;
        const std::string refusal = refusal_of(verification, took, candidate_seconds, i == yardstick(trials));
        if (refusal.empty()) {
            right.push_back(i);
        } else {
            refuse(trial, refusal);
        }
        journal.report("checking", ++checked, trials.size());
        journal.save_now_and_then();
    }
    return right;
}

}  // namespace smlora::tuning
