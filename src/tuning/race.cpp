#include "tuning/race.hpp"

#include "tuning/choice.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace smlora::tuning {
namespace {

constexpr double drop_factor = 2;

}  // namespace

Race::Race(Device& device, Journal& journal, const Protocol& protocol, RaceLimits limits)
    : device_(device), journal_(journal), protocol_(protocol), limits_(limits), trials_(journal.trials()) {}

void Race::take_rounds(std::vector<std::size_t> running) {
    const std::size_t first = rounds_so_far(trials_);
    for (int round = 0; !running.empty(); ++round) {
        const auto turn = static_cast<std::size_t>(round);
        if (!take_round(running, first + turn, turn, round > 0 ? Time::counts : Time::does_not_count)) return;
        if (round == 0) drop_slow_ones(running, first);
        settle(running);
        report(round);
    }
}

bool Race::run_off(const std::set<std::size_t>& ready) {
    std::size_t row = rounds_so_far(trials_);
    while (std::max(most_taken(), protocol_.rounds) < (1 + protocol_.runoffs) * protocol_.rounds) {
        const std::vector<std::size_t> running = finalists(ready);
        if (running.empty()) {
            const std::vector<std::size_t> equals = undecided(trials_);
            return std::all_of(equals.begin(), equals.end(), [&](std::size_t i) { return ready.count(i) > 0; });
        }
        for (int round = 0; round < protocol_.rounds; ++round, ++row) {
            if (!take_round(running, row, static_cast<std::size_t>(round), Time::counts)) return false;
            report(round);
        }
    }
    return true;
}

/// A sample of each. Whether time did not run out, if it counts.
bool Race::take_round(const std::vector<std::size_t>& running, std::size_t row, std::size_t round, Time time) {
    for (std::size_t at = 0; at < running.size(); ++at) {
        if (time == Time::counts && out_of_time()) return false;
        // Each is first in its turn: what the first sample of a round suffers, all of them do.
        Trial& trial = trials_[running[(at + round) % running.size()]];
        const double seconds = timed(trial, row);
        trial.samples.resize(row, no_sample);
        trial.samples.push_back(seconds);
        journal_.save_now_and_then();
    }
    return true;
}

double Race::timed(Trial& trial, std::size_t row) {
    const double before = device_.now();
    const auto run = [&] { return device_.time(trial.candidate, next_set_, row); };
    const bool first = trial.taken() == 0;
    const double seconds = first ? journal_.guarded(trial, run) : run();
    if (first) trial.why.clear();
    trial.spent_seconds += device_.now() - before;
    next_set_ = (next_set_ + 1) % limits_.sets;
    // Whole nanoseconds, as a record keeps them.
    return std::round(seconds * 1e9) / 1e9;
}

/// A single sample may have met an interruption, and a candidate that is dropped does not come back: it has a second
/// sample, and the better of the two counts.
void Race::drop_slow_ones(const std::vector<std::size_t>& running, std::size_t row) {
    for (const std::size_t i : too_slow(running)) {
        Trial& trial = trials_[i];
        trial.samples[row] = std::min(trial.samples[row], timed(trial, row));
    }
    for (const std::size_t i : too_slow(running)) trials_[i].verdict = Verdict::slow;
}

/// Of those in the running, but for the yardstick.
std::vector<std::size_t> Race::too_slow(const std::vector<std::size_t>& running) const {
    if (protocol_.breadth == Breadth::all) return {};
    const std::vector<Estimate> times = estimates(trials_);
    double best = std::numeric_limits<double>::infinity();
    for (const Estimate& time : times) {
        if (time.samples > 0) best = std::min(best, time.seconds);
    }
    const std::size_t unit = yardstick(trials_);
    std::vector<std::size_t> slow;
    for (const std::size_t i : running) {
        if (i != unit && times[i].seconds >= drop_factor * best) slow.push_back(i);
    }
    return slow;
}

/// Takes those out of the running that are slow, done, or have had their time. The yardstick stays as long as any
/// other runs.
void Race::settle(std::vector<std::size_t>& running) {
    const auto is_done = [&](const Trial& trial) {
        const int samples = trial.taken();
        return samples >= protocol_.rounds || (samples > 0 && is_out_of_seconds(trial));
    };
    const std::size_t unit = yardstick(trials_);
    bool others = false;
    for (const std::size_t i : running) {
        if (i == unit) continue;
        Trial& trial = trials_[i];
        if (trial.verdict == Verdict::pending && is_done(trial)) trial.verdict = Verdict::measured;
        others = others || trial.verdict == Verdict::pending;
    }
    if (!others && is_done(trials_[unit])) trials_[unit].verdict = Verdict::measured;
    std::erase_if(running,
                  [&](std::size_t i) { return trials_[i].verdict != Verdict::pending && (i != unit || !others); });
}

/// Samples of the trial that has most of them, but for the yardstick, which takes part in everything.
int Race::most_taken() const {
    const std::size_t unit = yardstick(trials_);
    int most = 0;
    for (std::size_t i = 0; i < trials_.size(); ++i) {
        if (i != unit) most = std::max(most, trials_[i].taken());
    }
    return most;
}

/// Those that are compiled and have time left.
std::vector<std::size_t> Race::finalists(const std::set<std::size_t>& ready) const {
    std::vector<std::size_t> found = undecided(trials_);
    if (found.empty()) return found;
    const std::size_t unit = yardstick(trials_);
    if (found.front() != unit) found.insert(found.begin(), unit);
    std::erase_if(found,
                  [&](std::size_t i) { return ready.count(i) == 0 || (i != unit && is_out_of_seconds(trials_[i])); });
    return found.size() > 1 ? found : std::vector<std::size_t>{};
}

void Race::report(int round) const {
    journal_.report("timing", static_cast<std::size_t>(round) + 1, static_cast<std::size_t>(protocol_.rounds));
}

}  // namespace smlora::tuning
