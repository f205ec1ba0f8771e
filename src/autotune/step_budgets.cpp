#include "autotune/step_budgets.hpp"

#include <algorithm>
#include <utility>

namespace smlora::autotune {

StepBudgets::Turn::Turn(StepBudgets& budgets, std::string step, std::size_t operation, std::size_t operations)
    : budgets_(budgets),
      step_(std::move(step)),
      whole_(budgets.left(step_)),
      own_(whole_.part(budgets.still_to_come(step_, operation, operations))) {}

StepBudgets::Turn::~Turn() {
    const std::lock_guard lock(budgets_.mutex_);
    budgets_.accounts_[step_].spent += whole_.spent();
}

tuning::Budget StepBudgets::left(const std::string& step) {
    const std::lock_guard lock(mutex_);
    return {seconds_ - accounts_[step].spent, clock_};
}

std::size_t StepBudgets::still_to_come(const std::string& step, std::size_t operation, std::size_t operations) {
    const std::lock_guard lock(mutex_);
    std::set<std::size_t>& asked = accounts_[step].operations;
    asked.insert(operation);
    return std::max(operations, asked.size()) - (asked.size() - 1);
}

}  // namespace smlora::autotune
