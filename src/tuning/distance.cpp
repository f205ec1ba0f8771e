#include "tuning/distance.hpp"

#include "tuning/choice.hpp"

#include <algorithm>
#include <cmath>

namespace smlora::tuning {

std::optional<Distance> distance(const Tuning& all, const std::optional<Configuration>& choice) {
    const auto chosen = std::find_if(all.trials.begin(), all.trials.end(), [&](const Trial& trial) {
        return !choice || trial.candidate.configuration == *choice;
    });
    if (chosen == all.trials.end()) return std::nullopt;
    Distance result;
    result.chosen = static_cast<std::size_t>(chosen - all.trials.begin());
    result.best = result.chosen;
    const std::vector<Estimate> times = estimates(all.trials);
    if (times[result.chosen].samples == 0) return std::nullopt;
    for (std::size_t i = 0; i < times.size(); ++i) {
        if (times[i].samples > 0 && times[i].seconds < times[result.best].seconds) result.best = i;
    }
    result.factor = times[result.chosen].seconds / times[result.best].seconds;
    if (result.best != result.chosen) {
        result.noise = 3 * std::hypot(times[result.chosen].noise, times[result.best].noise);
    }
    return result;
}

}  // namespace smlora::tuning
