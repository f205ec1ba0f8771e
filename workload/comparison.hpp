// How far a result is from its fp64 reference, and how far it may be.
#pragma once

#include <smlora/dtype.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

namespace smlora::workload {

/// What a result is made of, where its type alone does not say what rounding may do to it.
struct Sums {
    std::int64_t terms = 1;                                         ///< that are added up for a number
    std::size_t numbers = std::numeric_limits<std::size_t>::max();  ///< of the result
};

/// The largest relative error by norm that rounding in `dtype` explains (docs/design.md, "Accuracy"):
///   bf16 4e-3, fp16 1e-3, fp64 1e-12
///   fp32 1e-6, for sums of more than 1024 terms growing with their square root, as errors of sums in fp32 do
/// It is for roundings that average out, which those of a handful of numbers (less than 64) do not: then three times
/// that, the worst case of the three roundings that a result goes through.
[[nodiscard]] double tolerance_of(DType dtype, const Sums& sums = {});

/// How much further than tolerance_of a single row or element may be off: a norm alone would forgive one wrong element
/// in a million.
inline constexpr double single_factor = 10;

/// Gathers an output's values, or a sample of them, beside what they should be.
class Comparison {
 public:
    /// A group is a set of elements of one magnitude; a single element is judged against it. A group of a few has no
    /// typical magnitude, as the terms of a sum may cancel: it is judged by the norm over all groups alone.
    void add_group(std::span<const double> actual, std::span<const double> expected);

    [[nodiscard]] double norm_error() const { return norm_ > 0 ? std::sqrt(difference_ / norm_) : 0; }
    [[nodiscard]] std::size_t count() const { return count_; }

    /// What is wrong; empty when nothing is.
    [[nodiscard]] std::string complaint(double tolerance) const;

 private:
    double difference_ = 0;
    double norm_ = 0;
    double worst_ = 0;
    std::size_t nonzero_ = 0;
    std::size_t count_ = 0;
};

/// The whole of one output against the whole of another way to compute it.
[[nodiscard]] double norm_error(std::span<const double> actual, std::span<const double> expected);

/// By rows, for reports.
struct Difference {
    /// |got - want| / |want| by Euclidean norm. Infinite when a number is not finite, or when a row that must be
    /// exactly zero is not. 0 when both are equal.
    double relative = 0;
    /// The largest |got - want| of a row over the root mean square of |want| of the rows that are not zero: one wrong
    /// row among many hardly moves `relative`, but shows here.
    double worst_row = 0;
};

/// Both hold rows of `row_width` numbers. A row whose reference is zero throughout (an entry left out, an expert
/// without rows) must be exactly zero. `scale` is the size that a number of the other rows has at the least by the way
/// its inputs were drawn: a handful of numbers may be small because their terms cancel, and an error is judged by the
/// size of the terms. Among many numbers it makes no difference.
[[nodiscard]] Difference compare(std::span<const double> got, std::span<const double> want, std::size_t row_width,
                                 double scale = 0);

}  // namespace smlora::workload
