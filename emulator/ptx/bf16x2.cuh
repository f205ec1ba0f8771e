// Arithmetic on pairs of bf16.
#pragma once

#include "ptx/convert.cuh"

namespace smlora::ptx {

/// Rounded once: a first rounding to fp32 keeps in its last bit whether it was exact.
inline constexpr auto bf16_from_double = [](double value) {
    float single = static_cast<float>(value);
    if (single != value && single == single) {
        // To odd: one of the two neighbours has its last bit set.
        const unsigned bits = __float_as_uint(single);
        const bool too_large = (single > value) == (value > 0);
        if ((bits & 1U) == 0) single = __uint_as_float(too_large ? bits - 1 : bits + 1);
    }
    return bf16_from_float(single);
};

inline constexpr auto on_halves = [](unsigned a, unsigned b, auto operation) {
    const auto half = [&](int shift) {
        const auto number = [&](unsigned pair) {
            return float_from_bf16(static_cast<unsigned short>(pair >> shift & 0xFFFFU));
        };
        return static_cast<unsigned>(bf16_from_float(operation(number(a), number(b)))) << shift;
    };
    return half(0) | half(16);
};

__device__ __forceinline__ unsigned multiply_bf16x2(unsigned a, unsigned b) {
    return on_halves(a, b, [](float x, float y) { return x * y; });
}

__device__ __forceinline__ unsigned add_bf16x2(unsigned a, unsigned b) {
    return on_halves(a, b, [](float x, float y) { return x + y; });
}

/// The sum is exact in fp64 for terms that are within 2^36 of each other.
__device__ __forceinline__ unsigned multiply_add_bf16x2(unsigned a, unsigned b, unsigned c) {
    const auto half = [&](int shift) {
        const auto number = [&](unsigned pair) -> double {
            return float_from_bf16(static_cast<unsigned short>(pair >> shift & 0xFFFFU));
        };
        return static_cast<unsigned>(bf16_from_double(number(a) * number(b) + number(c))) << shift;
    };
    return half(0) | half(16);
}

}  // namespace smlora::ptx
