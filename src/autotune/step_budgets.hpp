// What first use may take: a budget for each problem and bucket of T, which the operations of a training step share.
#pragma once

#include "tuning/budget.hpp"

#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>

namespace smlora::autotune {

/// Thread-safe.
class StepBudgets {
 public:
    StepBudgets(double seconds, tuning::Clock clock) : seconds_(seconds), clock_(std::move(clock)) {}

    /// One call of an operation. Its time counts from construction to destruction, whatever it is spent on, and is then
    /// taken off the step's budget.
    class Turn {
     public:
        /// `operation`: the index of the request. `operations`: of a step.
        Turn(StepBudgets& budgets, std::string step, std::size_t operation, std::size_t operations);
        ~Turn();
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;

        /// All that is left of the step's budget.
        [[nodiscard]] const tuning::Budget& whole() const { return whole_; }
        /// This operation's share: each later operation has as much, and what this one leaves over.
        [[nodiscard]] const tuning::Budget& own() const { return own_; }

     private:
        StepBudgets& budgets_;
        const std::string step_;
        const tuning::Budget whole_;
        const tuning::Budget own_;
    };

 private:
    struct Account {
        double spent = 0;
        std::set<std::size_t> operations;  ///< that have asked
    };

    [[nodiscard]] tuning::Budget left(const std::string& step);
    /// Operations of the step, this one included.
    [[nodiscard]] std::size_t still_to_come(const std::string& step, std::size_t operation, std::size_t operations);

    const double seconds_;
    const tuning::Clock clock_;
    std::mutex mutex_;
    std::map<std::string, Account> accounts_;  ///< by the key of the record
};

}  // namespace smlora::autotune
