#include "tuning/budget.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace smlora::tuning {

Clock steady_clock() {
    return [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
}

Budget::Budget(double seconds, Clock clock)
    : clock_(std::move(clock)), begin_(clock_()), seconds_(std::max(0.0, seconds)) {}

double Budget::spent() const { return clock_() - begin_; }

double Budget::left() const { return std::max(0.0, seconds_ - spent()); }

Budget Budget::part(std::size_t works) const {
    return {left() / static_cast<double>(std::max<std::size_t>(works, 1)), clock_};
}

}  // namespace smlora::tuning
