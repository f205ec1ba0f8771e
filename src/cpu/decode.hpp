// Quantised weights, decoded.
#pragma once

#include <smlora/weight.hpp>

#include <array>
#include <cstdint>

namespace smlora::cpu {

/// 1 sign, 4 exponent (bias 7) and 3 mantissa bits; no infinity, NaN where all but the sign are set.
[[nodiscard]] float from_e4m3(std::uint8_t bits);

/// Decodes rows of a quantised weight that was checked. What it decodes to, and in which order it rounds:
/// smlora/weight.hpp.
class RowDecoder {
 public:
    explicit RowDecoder(const Weight& weight);

    /// `count` columns of a row from `column` on, in fp32: exact or rounded once. They are rounded once more to the
    /// type asked for, which bitsandbytes and the others do as well.
    void decode(std::int64_t expert, std::int64_t row, std::int64_t column, std::int64_t count, float* values) const;

    /// What the values of codes there are multiplied by: the scale, of mxfp4 half of it.
    [[nodiscard]] float scale(std::int64_t expert, std::int64_t row, std::int64_t column) const;

 private:
    [[nodiscard]] int code(std::int64_t index) const;
    /// Where the scale of a row's column is, of encodings that have one for a block of a row, or arranged.
    [[nodiscard]] std::int64_t scale_index(std::int64_t expert, std::int64_t row, std::int64_t column) const;
    [[nodiscard]] float block_scale(std::int64_t index) const;

    Weight weight_;
    bool arranged_;
    std::array<float, 256> values_{};  ///< of the codes
};

}  // namespace smlora::cpu
