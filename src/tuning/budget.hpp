// Time that pieces of work share, on one clock.
#pragma once

#include <cstddef>
#include <functional>

namespace smlora::tuning {

/// Seconds, from any beginning. Called from any thread.
using Clock = std::function<double()>;

/// The machine's, which never goes back.
[[nodiscard]] Clock steady_clock();

/// So many seconds from when it is made, whatever they pass with.
class Budget {
 public:
    /// `seconds` below 0 count as 0.
    Budget(double seconds, Clock clock);

    [[nodiscard]] double total() const { return seconds_; }
    [[nodiscard]] double spent() const;
    /// 0 when it is used up.
    [[nodiscard]] double left() const;

    /// For the next of `works` pieces of work that are still to come: an equal part of what is left, so that what
    /// earlier ones leave over is for the later ones. It begins now.
    [[nodiscard]] Budget part(std::size_t works) const;

 private:
    Clock clock_;
    double begin_;
    double seconds_;
};

}  // namespace smlora::tuning
