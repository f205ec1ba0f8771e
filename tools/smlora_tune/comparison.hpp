// How far a result is from its reference.
#pragma once

#include <smlora/dtype.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace smlora::tool {

struct Array;

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
[[nodiscard]] Difference compare(const std::vector<double>& got, const std::vector<double>& want, std::size_t row_width,
                                 double scale = 0);

/// The largest relative error by norm that rounding in `dtype` explains (docs/design.md, "Accuracy") in a result of
/// `numbers` numbers. It is for roundings that average out, which those of a handful of numbers do not: then each may
/// be as far off as the worst case of the three roundings that a result goes through.
[[nodiscard]] double tolerance_of(DType dtype, std::size_t numbers);

/// How much further than tolerance_of a single row may be off.
inline constexpr double worst_row_factor = 10;

/// The first `elements` elements of a tensor's memory, in pieces.
struct Scan {
    std::string hash;            ///< of the bytes: equal for bitwise equal results
    std::size_t non_finite = 0;  ///< for floating-point types
};
[[nodiscard]] Scan scan(const Array& array, std::size_t elements);

}  // namespace smlora::tool
