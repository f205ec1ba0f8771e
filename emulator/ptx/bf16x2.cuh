// Arithmetic on pairs of bf16.
#pragma once

#include "ptx/convert.cuh"

namespace smlora::ptx {

__device__ __forceinline__ unsigned multiply_bf16x2(unsigned a, unsigned b) {
    const auto half = [&](int shift) {
        const auto number = [&](unsigned pair) {
            return float_from_bf16(static_cast<unsigned short>(pair >> shift & 0xFFFFU));
        };
        return static_cast<unsigned>(bf16_from_float(number(a) * number(b))) << shift;
    };
    return half(0) | half(16);
}

}  // namespace smlora::ptx
