// Arithmetic on pairs of bf16.
#pragma once

#include "ptx/convert.cuh"

namespace smlora::ptx {

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

}  // namespace smlora::ptx
