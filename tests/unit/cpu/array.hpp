// Host memory with a view, read and written as doubles by conversions that share nothing with the library's.
#pragma once

#include "support/number.hpp"

#include <smlora/tensor.hpp>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace smlora::test {

/// To nearest even, by arithmetic alone: `bits` of mantissa with the leading one, exponents from `lowest` of the
/// leading bit on, infinity beyond `largest`.
[[nodiscard]] double round_to_format(double value, int bits, int lowest, double largest);

/// The nearest value of the dtype.
[[nodiscard]] double round_to(double value, DType dtype);

/// A tensor that owns its memory, filled with NaN (or -1) until written.
class Array {
 public:
    Array() = default;
    Array(Array&&) = default;
    Array& operator=(Array&&) = default;
    Array(DType dtype, std::initializer_list<std::int64_t> shape);
    /// Strides of its own; elements between are never touched.
    Array(DType dtype, std::initializer_list<std::int64_t> shape, std::initializer_list<std::int64_t> strides);

    [[nodiscard]] const Tensor& view() const { return view_; }
    operator const Tensor&() const { return view_; }

    [[nodiscard]] double at(std::int64_t i, std::int64_t j = 0, std::int64_t k = 0) const;
    void set(double value, std::int64_t i, std::int64_t j = 0, std::int64_t k = 0);
    [[nodiscard]] std::int64_t integer(std::int64_t i, std::int64_t j = 0) const;
    void set_integer(std::int64_t value, std::int64_t i, std::int64_t j = 0);

    void poison();
    /// Normally distributed.
    void randomize(std::mt19937_64& random, double deviation = 1.0);
    /// All elements in the order of the indices, as if contiguous.
    [[nodiscard]] std::vector<double> values() const;
    [[nodiscard]] const std::vector<std::byte>& bytes() const { return memory_; }
    /// Whether every byte that no element covers is still poison.
    [[nodiscard]] bool gaps_untouched() const;

 private:
    [[nodiscard]] std::size_t offset(std::int64_t i, std::int64_t j, std::int64_t k) const;
    void allocate();

    std::vector<std::byte> memory_;
    Tensor view_;
};

/// ||got - expected|| / ||expected||, or ||got|| where nothing is expected; NaN where anything is.
[[nodiscard]] double relative_error(const std::vector<double>& got, const std::vector<double>& expected);

}  // namespace smlora::test
