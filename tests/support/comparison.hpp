// Comparing an output with its fp64 reference.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace smlora::test {

/// Gathers an output's values, or a sample of them, beside what they should be.
class Comparison {
 public:
    /// A group is a set of elements of one magnitude; a single element is judged against it. A group of a few has no
    /// typical magnitude, as the terms of a sum may cancel: it is judged by the norm over all groups alone.
    void add_group(std::span<const double> actual, std::span<const double> expected) {
        double squares = 0;
        for (std::size_t i = 0; i < expected.size(); ++i) {
            squares += expected[i] * expected[i];
            difference_ += (actual[i] - expected[i]) * (actual[i] - expected[i]);
        }
        norm_ += squares;
        const double typical = std::sqrt(squares / static_cast<double>(std::max<std::size_t>(1, expected.size())));
        for (std::size_t i = 0; i < expected.size(); ++i) {
            if (expected[i] == 0 && typical == 0) {
                if (actual[i] != 0) ++nonzero_;  // NaN counts too
                continue;
            }
            const double error = std::abs(actual[i] - expected[i]) / (std::abs(expected[i]) + typical);
            const bool judged = expected.size() >= smallest_group || std::isnan(error);
            if (judged && !(error <= worst_)) worst_ = error;  // and stays NaN once it is
        }
        count_ += expected.size();
    }

    [[nodiscard]] double norm_error() const { return norm_ > 0 ? std::sqrt(difference_ / norm_) : 0; }
    [[nodiscard]] std::size_t count() const { return count_; }

    /// A norm alone would forgive one wrong element in a million, so single ones have a bound, too: ten times as wide,
    /// since the errors of sums are spread around their norm.
    [[nodiscard]] testing::AssertionResult within(double tolerance) const {
        if (nonzero_ > 0) return testing::AssertionFailure() << nonzero_ << " elements that should be zero are not";
        if (!(norm_error() <= tolerance)) {
            return testing::AssertionFailure() << "relative error by norm " << norm_error() << " over " << count_
                                               << " elements, tolerance " << tolerance;
        }
        if (!(worst_ <= 10 * tolerance)) {
            return testing::AssertionFailure()
                   << "an element is off by " << worst_ << " of its magnitude, tolerance " << 10 * tolerance;
        }
        return testing::AssertionSuccess();
    }

 private:
    static constexpr std::size_t smallest_group = 8;

    double difference_ = 0;
    double norm_ = 0;
    double worst_ = 0;
    std::size_t nonzero_ = 0;
    std::size_t count_ = 0;
};

/// The whole of one output against the whole of another way to compute it.
inline double norm_error(std::span<const double> actual, std::span<const double> expected) {
    Comparison comparison;
    comparison.add_group(actual, expected);
    return comparison.norm_error();
}

}  // namespace smlora::test
