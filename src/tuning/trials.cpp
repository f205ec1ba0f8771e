#include "tuning/trials.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace smlora::tuning {

std::size_t yardstick(const std::vector<Trial>& trials) {
    const auto found = std::find_if(trials.begin(), trials.end(),
                                    [](const Trial& trial) { return trial.verdict != Verdict::refused; });
    return static_cast<std::size_t>(found - trials.begin());
}

bool takes_part(const std::vector<Trial>& trials, std::size_t index) {
    return trials[index].verdict == Verdict::pending || index == yardstick(trials);
}

bool all_decided(const std::vector<Trial>& trials) {
    return std::none_of(trials.begin(), trials.end(),
                        [](const Trial& trial) { return trial.verdict == Verdict::pending; });
}

std::size_t rounds_so_far(const std::vector<Trial>& trials) {
    std::size_t rounds = 0;
    for (const Trial& trial : trials) rounds = std::max(rounds, trial.samples.size());
    return rounds;
}

void refuse(Trial& trial, std::string why) {
    trial.verdict = Verdict::refused;
    trial.why = std::move(why);
    trial.timing.reset();
    trial.samples.clear();
}

void note_failure(Trial& trial, std::string_view how) {
    trial.verdict = Verdict::pending;
    if (trial.why.empty()) {
        trial.why = how;
    } else {
        refuse(trial, fmt::format("failed twice: {}; {}", trial.why, how));
    }
}

}  // namespace smlora::tuning
