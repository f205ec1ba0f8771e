#include "tune/choice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace smlora::tune {
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

/// Of a median, by the median absolute deviation: one wild sample changes neither.
double relative_error_of_median(const std::vector<double>& values, double middle) {
    if (values.size() < trusted_samples) return unknown_noise;
    std::vector<double> deviations;
    for (const double value : values) deviations.push_back(std::abs(value - middle));
    constexpr double to_standard_deviation = 1.4826;
    constexpr double median_to_mean = 1.2533;
    return median_to_mean * to_standard_deviation * median(deviations) / middle /
           std::sqrt(static_cast<double>(values.size()));
}

constexpr double most_noise = 0.03;

bool stands(const Trial& trial) { return trial.verdict != Verdict::refused; }

}  // namespace

std::vector<Estimate> estimates(const std::vector<Trial>& trials) {
    std::vector<Estimate> result(trials.size());
    const auto yardstick = std::find_if(trials.begin(), trials.end(), stands);
    if (yardstick == trials.end()) return result;
    std::vector<double> unit;
    std::copy_if(yardstick->samples.begin(), yardstick->samples.end(), std::back_inserter(unit),
                 [](double seconds) { return !std::isnan(seconds); });
    if (unit.empty()) return result;
    const double unit_seconds = median(unit);
    std::vector<double> noises;
    for (std::size_t i = 0; i < trials.size(); ++i) {
        if (!stands(trials[i])) continue;
        std::vector<double> ratios;
        for (std::size_t round = 0; round < trials[i].samples.size(); ++round) {
            const double ratio = trials[i].samples[round] / yardstick->sample(round);
            if (!std::isnan(ratio)) ratios.push_back(ratio);
        }
        if (ratios.empty()) continue;
        const double middle = median(ratios);
        const bool is_yardstick = &trials[i] == &*yardstick;
        result[i] = {middle * unit_seconds, is_yardstick ? 0 : relative_error_of_median(ratios, middle),
                     static_cast<int>(ratios.size())};
        if (!is_yardstick && ratios.size() >= trusted_samples) noises.push_back(result[i].noise);
    }
    if (noises.empty()) return result;
    // A handful of samples agree by chance now and then. All candidates ran on the same machine in the same minute.
    const double usual = median(noises);
    for (std::size_t i = 0; i < trials.size(); ++i) {
        if (result[i].samples > 0 && &trials[i] != &*yardstick) result[i].noise = std::max(result[i].noise, usual);
    }
    return result;
}

Judgement judge(const std::vector<Trial>& trials) {
    const std::vector<Estimate> times = estimates(trials);
    int most_samples = 0;
    for (const Estimate& time : times) most_samples = std::max(most_samples, time.samples);
    const auto competes = [&](std::size_t i) {
        return trials[i].verdict != Verdict::slow &&
               times[i].samples >= std::max(1, std::min(most_samples, trusted_samples));
    };
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < trials.size(); ++i) {
        if (competes(i) && (!best || times[i].seconds < times[*best].seconds)) best = i;
    }
    if (!best) {
        const auto standing = std::find_if(trials.begin(), trials.end(), stands);
        if (standing == trials.end()) return {std::nullopt, "no candidate was right"};
        return {static_cast<std::size_t>(standing - trials.begin()),
                "predicted to be the fastest, nothing was measured"};
    }

    const auto ties = [&](std::size_t i) {
        if (i == *best) return true;
        if (!competes(i)) return false;
        double noise = 3 * std::hypot(times[i].noise, times[*best].noise);
        // Where little can be told apart, the heuristic choice is as good as any, but others are not as good as it.
        if (i != 0) noise = std::min(noise, most_noise);
        return times[i].seconds <= times[*best].seconds * (1 + std::max(noise_floor, noise));
    };
    if (ties(0)) {
        return {0, *best == 0 ? "the heuristic choice, and the fastest"
                              : fmt::format("the heuristic choice, within the noise of the fastest ({})",
                                            trials[*best].candidate.name)};
    }
    std::size_t winner = *best;
    for (std::size_t i = 0; i < trials.size(); ++i) {
        const auto rank = [&](std::size_t at) {
            return std::tie(trials[at].candidate.shared_bytes, trials[at].candidate.name);
        };
        if (ties(i) && rank(i) < rank(winner)) winner = i;
    }
    if (winner != *best) {
        return {winner, fmt::format("the least shared memory, within the noise of the fastest ({})",
                                    trials[*best].candidate.name)};
    }
    return {winner, times[0].samples > 0 ? fmt::format("{:.1f} % faster than the heuristic choice",
                                                       100 * (times[0].seconds / times[winner].seconds - 1))
                                         : "the fastest; the heuristic choice was refused"};
}

}  // namespace smlora::tune
