// Conversions between float and the 16-bit formats, round to nearest even.
#pragma once

namespace smlora::ptx {

__device__ __forceinline__ float float_from_bf16(unsigned short bits) {
    return __uint_as_float(static_cast<unsigned>(bits) << 16);
}

__device__ __forceinline__ float float_from_fp16(unsigned short bits) {
    const unsigned sign = (bits & 0x8000U) << 16;
    const unsigned exponent = bits >> 10 & 0x1fU;
    const unsigned fraction = bits & 0x3ffU;
    if (exponent == 0x1fU) return __uint_as_float(sign | 0x7f800000U | fraction << 13);
    if (exponent != 0) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
    const float small = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -small : small;
}

__device__ __forceinline__ unsigned short bf16_from_float(float value) {
    const unsigned bits = __float_as_uint(value);
    if (value != value) return 0x7fffU;
    return static_cast<unsigned short>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

__device__ __forceinline__ unsigned short fp16_from_float(float value) {
    if (value != value) return 0x7fffU;
    const unsigned bits = __float_as_uint(value);
    const unsigned sign = bits >> 16 & 0x8000U;
    const unsigned magnitude = bits & 0x7fffffffU;
    if (magnitude >= 0x47800000U) return static_cast<unsigned short>(sign | 0x7c00U);  // 65536 and above
    if (magnitude < 0x38800000U) {
        // Below the normal range: adding 0.5 leaves the multiple of 2^-24 in the last bits, rounded as it should be.
        const unsigned sum = __float_as_uint(__uint_as_float(magnitude) + 0.5F);
        return static_cast<unsigned short>(sign | (sum - 0x3f000000U));
    }
    // Rounding may carry into the exponent, up to infinity.
    const unsigned rounded = magnitude + 0xfffU + (magnitude >> 13 & 1U);
    return static_cast<unsigned short>(sign | (rounded - 0x38000000U) >> 13);
}

__device__ __forceinline__ unsigned bf16x2_from_floats(float low, float high) {
    return bf16_from_float(low) | static_cast<unsigned>(bf16_from_float(high)) << 16;
}

__device__ __forceinline__ unsigned fp16x2_from_floats(float low, float high) {
    return fp16_from_float(low) | static_cast<unsigned>(fp16_from_float(high)) << 16;
}

}  // namespace smlora::ptx
