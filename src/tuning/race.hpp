// The third part of a measurement: timing candidates in rounds, and those that only noise makes equals in runoffs.
#pragma once

#include "tuning/journal.hpp"

#include <cstddef>
#include <set>
#include <vector>

namespace smlora::tuning {

/// What a race may take.
struct RaceLimits {
    int sets = 1;      ///< of operands, which samples take in turn
    double until = 0;  ///< of now(); no sample is begun from then on
};

class Race {
 public:
    Race(Device& device, Journal& journal, const Protocol& protocol, RaceLimits limits);

    /// One sample of each of `running`, numbers of trials, in each round, until all have their verdicts or time is up.
    /// The first round is taken whatever the time, or a device on which checking takes long would never come to a
    /// choice. Rounds of earlier calls stay as they are; new ones come behind them.
    void take_rounds(std::vector<std::size_t> running);

    /// Further rounds of those of `ready` that only noise makes equals, and of the yardstick. Whether that leaves
    /// nothing to be done: time did not run out, and none of them is to be compiled by a later call first.
    [[nodiscard]] bool run_off(const std::set<std::size_t>& ready);

 private:
    [[nodiscard]] bool out_of_time() const { return device_.now() >= limits_.until; }
    [[nodiscard]] bool is_out_of_seconds(const Trial& trial) const {
        return trial.spent_seconds > protocol_.candidate_seconds;
    }
    enum class Time { counts, does_not_count };
    bool take_round(const std::vector<std::size_t>& running, std::size_t row, std::size_t round, Time time);
    double timed(Trial& trial, std::size_t row);
    void drop_slow_ones(const std::vector<std::size_t>& running, std::size_t row);
    [[nodiscard]] std::vector<std::size_t> too_slow(const std::vector<std::size_t>& running) const;
    void settle(std::vector<std::size_t>& running);
    [[nodiscard]] int most_taken() const;
    [[nodiscard]] std::vector<std::size_t> finalists(const std::set<std::size_t>& ready) const;
    void report(int round) const;

    Device& device_;
    Journal& journal_;
    const Protocol& protocol_;
    const RaceLimits limits_;
    std::vector<Trial>& trials_;
    int next_set_ = 0;
};

}  // namespace smlora::tuning
