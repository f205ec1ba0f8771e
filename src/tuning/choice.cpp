#include "tuning/choice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace smlora::tuning {
namespace {

// Of a few samples none may be what a candidate usually takes, and of the yardstick's either.
constexpr int trusted_samples = 3;

// What one or two samples may be off by: enough that they never displace the heuristic choice over a few percent.
constexpr double unknown_noise = 0.05;

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    if (values.size() % 2 == 1) return *middle;
    return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

/// Relative, by the median absolute deviation: one wild sample does not change it.
double standard_deviation(const std::vector<double>& values, double middle) {
    std::vector<double> deviations;
    for (const double value : values) deviations.push_back(std::abs(value - middle));
    constexpr double to_standard_deviation = 1.4826;
    return to_standard_deviation * median(deviations) / middle;
}

/// Of the median of `samples` with that standard deviation.
double error_of_median(double deviation, int samples) {
    constexpr double median_to_mean = 1.2533;
    const double error = median_to_mean * deviation / std::sqrt(static_cast<double>(samples));
    return samples < trusted_samples ? std::max(error, unknown_noise) : error;
}

constexpr double most_noise = 0.03;

bool stands(const Trial& trial) { return trial.verdict != Verdict::refused; }

/// A trial's samples beside those of the yardstick.
struct Comparison {
    double ratio = 0;
    double deviation = 0;
    int samples = 0;
};

std::vector<double> taken_samples(const Trial& trial) {
    std::vector<double> taken;
    std::copy_if(trial.samples.begin(), trial.samples.end(), std::back_inserter(taken),
                 [](double seconds) { return !std::isnan(seconds); });
    return taken;
}

/// The yardstick's median time; nothing when it was never timed.
std::optional<double> unit_of(const Trial& yardstick) {
    if (yardstick.timing) return yardstick.timing->seconds();
    const std::vector<double> taken = taken_samples(yardstick);
    return taken.empty() ? std::nullopt : std::optional(median(taken));
}

Comparison compare_rounds(const Trial& trial, const Trial& yardstick) {
    std::vector<double> ratios;
    for (std::size_t round = 0; round < trial.samples.size(); ++round) {
        const double ratio = trial.samples[round] / yardstick.sample(round);
        if (!std::isnan(ratio)) ratios.push_back(ratio);
    }
    if (ratios.empty()) return {};
    const double middle = median(ratios);
    return {middle, standard_deviation(ratios, middle), static_cast<int>(ratios.size())};
}

/// Both by their numbers of samples.
Comparison pooled(const Comparison& a, const Comparison& b) {
    if (a.samples == 0) return b;
    if (b.samples == 0) return a;
    const double share = static_cast<double>(b.samples) / (a.samples + b.samples);
    const double ratio = a.ratio + share * (b.ratio - a.ratio);
    const auto variance = [&](const Comparison& part) {
        return std::pow(part.deviation * part.ratio, 2) + std::pow(part.ratio - ratio, 2);
    };
    return {ratio, std::sqrt((1 - share) * variance(a) + share * variance(b)) / ratio, a.samples + b.samples};
}

/// By trial, against the first that stands; `unit` is that one's time.
std::vector<Comparison> compared(const std::vector<Trial>& trials, double unit) {
    const Trial& yardstick = *std::find_if(trials.begin(), trials.end(), stands);
    std::vector<Comparison> result;
    for (const Trial& trial : trials) {
        Comparison earlier;
        if (stands(trial) && trial.timing) {
            earlier = {trial.timing->seconds() / unit, trial.timing->deviation, trial.timing->samples};
        }
        result.push_back(stands(trial) ? pooled(earlier, compare_rounds(trial, yardstick)) : Comparison{});
    }
    return result;
}

std::optional<double> unit_seconds(const std::vector<Trial>& trials) {
    const auto yardstick = std::find_if(trials.begin(), trials.end(), stands);
    return yardstick == trials.end() ? std::nullopt : unit_of(*yardstick);
}

}  // namespace

int Trial::taken() const { return (timing ? timing->samples : 0) + static_cast<int>(taken_samples(*this).size()); }

std::vector<Estimate> estimates(const std::vector<Trial>& trials) {
    std::vector<Estimate> result(trials.size());
    const std::optional<double> unit = unit_seconds(trials);
    if (!unit) return result;
    const std::vector<Comparison> times = compared(trials, *unit);
    const auto yardstick = std::find_if(trials.begin(), trials.end(), stands);
    for (std::size_t i = 0; i < trials.size(); ++i) {
        if (times[i].samples > 0) result[i] = {times[i].ratio * *unit, 0, times[i].samples};
    }
    const auto is_compared = [&](std::size_t i) { return result[i].samples > 0 && &trials[i] != &*yardstick; };
    for (std::size_t i = 0; i < trials.size(); ++i) {
        if (!is_compared(i)) continue;
        // A handful of samples agree by chance now and then. All candidates ran on the same machine in the same minute;
        // but runoffs are quieter than what was before.
        std::vector<double> alike;
        for (std::size_t j = 0; j < trials.size(); ++j) {
            const bool comparable = result[j].samples >= std::max(trusted_samples, result[i].samples);
            if (is_compared(j) && comparable) alike.push_back(times[j].deviation);
        }
        const double usual = alike.empty() ? 0 : median(alike);
        result[i].noise = error_of_median(std::max(times[i].deviation, usual), result[i].samples);
    }
    return result;
}

void condense(std::vector<Trial>& trials) {
    const std::optional<double> unit = unit_seconds(trials);
    const std::vector<Comparison> times = unit ? compared(trials, *unit) : std::vector<Comparison>(trials.size());
    const auto rounded = [](double value) { return std::round(value * 1e5) / 1e5; };
    for (std::size_t i = 0; i < trials.size(); ++i) {
        trials[i].timing.reset();
        trials[i].samples.clear();
        if (times[i].samples == 0) continue;
        trials[i].timing = {std::round(*unit * 1e9) / 1e9, rounded(times[i].ratio), rounded(times[i].deviation),
                            times[i].samples};
    }
}

namespace {

/// Which trial is the fastest, and which cannot be told from it.
class RaceOutcome {
 public:
    explicit RaceOutcome(const std::vector<Trial>& trials) : trials_(trials), times_(estimates(trials)) {
        for (const Estimate& time : times_) most_samples_ = std::max(most_samples_, time.samples);
        for (std::size_t i = 0; i < trials.size(); ++i) {
            if (competes(i) && (!best_ || times_[i].seconds < times_[*best_].seconds)) best_ = i;
        }
    }

    [[nodiscard]] const std::vector<Estimate>& times() const { return times_; }
    [[nodiscard]] std::optional<std::size_t> best() const { return best_; }
    /// Relative, of a trial that competes.
    [[nodiscard]] double behind(std::size_t i) const { return times_[i].seconds / times_[*best_].seconds - 1; }

    /// Whether it is slower by more than noise_floor or not, its samples do not tell.
    [[nodiscard]] bool is_borderline(std::size_t i) const {
        return i != *best_ && competes(i) && std::abs(behind(i) - noise_floor) < noise(i);
    }

    [[nodiscard]] bool ties(std::size_t i) const {
        if (i == *best_) return true;
        if (!competes(i)) return false;
        // Where little can be told apart, the heuristic choice is as good as any, but others are not as good as it.
        const double most = i == 0 ? noise(i) : std::min(noise(i), most_noise);
        return behind(i) <= std::max(noise_floor, most);
    }

 private:
    /// Of how far it is behind.
    [[nodiscard]] double noise(std::size_t i) const { return 3 * std::hypot(times_[i].noise, times_[*best_].noise); }

    [[nodiscard]] bool competes(std::size_t i) const {
        return trials_[i].verdict != Verdict::slow &&
               times_[i].samples >= std::max(1, std::min(most_samples_, trusted_samples));
    }

    const std::vector<Trial>& trials_;
    std::vector<Estimate> times_;
    int most_samples_ = 0;
    std::optional<std::size_t> best_;
};

}  // namespace

Judgement judge(const std::vector<Trial>& trials) {
    const RaceOutcome race(trials);
    if (!race.best()) {
        const auto standing = std::find_if(trials.begin(), trials.end(), stands);
        if (standing == trials.end()) return {std::nullopt, "no candidate was right"};
        return {std::nullopt, "nothing was timed yet"};
    }

    const std::size_t best = *race.best();
    if (race.ties(0)) {
        return {0, best == 0 ? "the heuristic choice, and the fastest"
                             : fmt::format("the heuristic choice, within the noise of the fastest ({})",
                                           trials[best].candidate.name)};
    }
    std::size_t winner = best;
    for (std::size_t i = 0; i < trials.size(); ++i) {
        const auto rank = [&](std::size_t at) {
            return std::tie(trials[at].candidate.shared_bytes, trials[at].candidate.name);
        };
        if (race.ties(i) && rank(i) < rank(winner)) winner = i;
    }
    if (winner != best) {
        return {winner, fmt::format("the least shared memory, within the noise of the fastest ({})",
                                    trials[best].candidate.name)};
    }
    return {winner, race.times()[0].samples > 0
                        ? fmt::format("{:.1f} % faster than the heuristic choice",
                                      100 * (race.times()[0].seconds / race.times()[winner].seconds - 1))
                        : "the fastest; the heuristic choice was refused"};
}

std::vector<std::size_t> undecided(const std::vector<Trial>& trials) {
    const RaceOutcome race(trials);
    std::vector<std::size_t> result;
    if (!race.best()) return result;
    const bool borderline = race.is_borderline(0);
    bool parted = !borderline;
    for (std::size_t i = 0; i < trials.size(); ++i) {
        if (!race.ties(i) && !(i == 0 && borderline)) continue;
        result.push_back(i);
        parted = parted && race.behind(i) <= noise_floor;
    }
    if (parted) result.clear();
    return result;
}

}  // namespace smlora::tuning
