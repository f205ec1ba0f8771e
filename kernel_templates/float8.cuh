// The 8-bit and 4-bit floating-point formats of quantised weights, to fp32: exact, subnormal numbers too.
#pragma once

#include "types.cuh"

namespace smlora {

/// A number from 0 to 255. As a scale: 2^(bits - 127).
struct byte {
    unsigned char bits;
};
/// 2^(bits - 127); 255 is NaN.
struct e8m0 {
    unsigned char bits;
};
/// Sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinity, NaN where all but the sign are set.
struct e4m3 {
    unsigned char bits;
};

/// 2^(bits - 127): normal numbers of fp32 from 1 on, infinity for 255.
__device__ __forceinline__ float to_float(byte scale) {
    return __uint_as_float(scale.bits == 0 ? 0x00400000U : static_cast<uint32>(scale.bits) << 23);
}
__device__ __forceinline__ float to_float(e8m0 scale) {
    return scale.bits == 255 ? __uint_as_float(0x7fc00000U) : to_float(byte{scale.bits});
}

/// 2^(bits - 128), which fp32 has for every byte.
__device__ __forceinline__ float half_of(byte scale) {
    const uint32 bits = scale.bits;
    return __uint_as_float(bits < 2 ? 0x00200000U << bits : (bits - 1) << 23);
}
__device__ __forceinline__ float half_of(e8m0 scale) {
    return scale.bits == 255 ? __uint_as_float(0x7fc00000U) : half_of(byte{scale.bits});
}

/// The exponent's bias goes from 7 to 127 by a multiplication, which also takes subnormal numbers right.
__device__ __forceinline__ float to_float(e4m3 value) {
    const uint32 magnitude = value.bits & 0x7fU;
    const uint32 finite = __float_as_uint(__uint_as_float(magnitude << 20) * 0x1p120F);
    const uint32 sign = static_cast<uint32>(value.bits & 0x80U) << 24;
    return __uint_as_float((magnitude == 0x7fU ? 0x7fc00000U : finite) | sign);
}

/// Of the magnitude, 0 to 7: 0, 0.5, 1, 1.5, 2, 3, 4, 6.
__device__ __forceinline__ float float_from_e2m1(int magnitude) {
    return __uint_as_float(static_cast<uint32>(magnitude) << 22) * 0x1p126F;
}

}  // namespace smlora
