// Element types as truth sees them: bits to double and back, written apart from the library's own conversions.
#pragma once

#include <smlora/dtype.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace smlora::workload {

inline std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Bf16 {
    static double decode(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
    static std::uint16_t encode(double value) {
        const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
        if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x0040U);
        return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);  // to nearest, ties to even
    }
    static bool is_finite(std::uint16_t bits) { return (bits & 0x7F80) != 0x7F80; }
    using Bits = std::uint16_t;
};

struct Fp16 {
    static double decode(std::uint16_t bits) {
        const int exponent = (bits >> 10) & 31;
        const double fraction = bits & 1023;
        double magnitude = 0;
        if (exponent == 31) {
            magnitude = fraction == 0 ? HUGE_VAL : std::nan("");
        } else if (exponent == 0) {
            magnitude = std::ldexp(fraction, -24);
        } else {
            magnitude = std::ldexp(1024 + fraction, exponent - 25);
        }
        return (bits & 0x8000) != 0 ? -magnitude : magnitude;
    }
    static std::uint16_t encode(double value) {
        const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
        if (value == 0) return sign;  // which has no leading bit to count from
        if (!std::isfinite(value)) return static_cast<std::uint16_t>(sign | (std::isnan(value) ? 0x7E00 : 0x7C00));
        int exponent = 0;
        std::frexp(value,
                   &exponent);  // |value| = m * 2^exponent, 1/2 <= m < 1: its last bit is worth 2^(exponent - 11)
        const int unit = exponent < -13 ? -24 : exponent - 11;
        const double steps = std::nearbyint(std::ldexp(std::abs(value), -unit));
        // A carry out of the fraction runs into the exponent, which is what rounding up to the next binade is.
        const int bits = static_cast<int>(steps) + (exponent < -13 ? 0 : (exponent + 13) * 1024);
        return static_cast<std::uint16_t>(sign | (bits > 0x7C00 ? 0x7C00 : bits));
    }
    static bool is_finite(std::uint16_t bits) { return (bits & 0x7C00) != 0x7C00; }
    using Bits = std::uint16_t;
};

template <class Number>
struct Plain {
    static double decode(Number bits) { return static_cast<double>(bits); }
    static Number encode(double value) { return static_cast<Number>(value); }
    static bool is_finite(Number bits) { return std::isfinite(static_cast<double>(bits)); }
    using Bits = Number;
};

/// Calls `function` with the codec of `dtype`.
template <class Function>
decltype(auto) with_codec(DType dtype, Function&& function) {
    switch (dtype) {
        case DType::bf16:
            return function(Bf16{});
        case DType::fp16:
            return function(Fp16{});
        case DType::fp32:
            return function(Plain<float>{});
        case DType::fp64:
            return function(Plain<double>{});
        case DType::int32:
            return function(Plain<std::int32_t>{});
        case DType::int64:
            return function(Plain<std::int64_t>{});
        default:
            break;
    }
    throw std::logic_error("no array has this dtype");
}

/// target[i] = the element at source + i * stride elements.
inline void decode_row(DType dtype, const std::byte* source, std::int64_t count, std::int64_t stride, double* target) {
    with_codec(dtype, [&](auto codec) {
        typename decltype(codec)::Bits bits{};
        for (std::int64_t i = 0; i < count; ++i) {
            std::memcpy(&bits, source + index(i * stride) * sizeof bits, sizeof bits);
            target[i] = codec.decode(bits);
        }
    });
}

}  // namespace smlora::workload
