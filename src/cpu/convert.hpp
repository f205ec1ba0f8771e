// Conversions between the 16-bit formats and fp32: exact one way, rounded to nearest even the other.
//
// They are written without branches, so that loops over them vectorise, and with integer arithmetic where an operand
// could be denormal, so that a caller who runs with denormals flushed to zero gets the same bits. Always inlined: the
// files of isa/ are compiled for instruction sets that this machine may lack, and the linker must never pick their copy
// of a function for the rest of the library.
#pragma once

#include <cstdint>

namespace smlora::cpu {

/// Storage of one 16-bit element; its own type, so that overloads and templates can tell them apart.
struct Bf16 {
    std::uint16_t bits;
};
struct Fp16 {
    std::uint16_t bits;
};

[[gnu::always_inline]] inline float to_float(Bf16 value) {
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(value.bits) << 16);
}

[[gnu::always_inline]] inline float to_float(Fp16 value) {
    const auto bits = static_cast<std::uint32_t>(value.bits);
    const std::uint32_t sign = (bits & 0x8000U) << 16;
    const std::uint32_t magnitude = bits & 0x7fffU;
    // Normal numbers: the exponent's bias goes from 15 to 127.
    const std::uint32_t normal = (magnitude << 13) + (112U << 23);
    // Infinity and NaN: from exponent 31 to 255, another 112.
    const std::uint32_t special = normal + (112U << 23);
    // Denormal numbers are multiples of 2^-24, exact and normal in fp32.
    const float small = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24F;
    const auto denormal = __builtin_bit_cast(std::uint32_t, small);
    const std::uint32_t quiet = magnitude > 0x7c00U ? 0x00400000U : 0U;
    const std::uint32_t finite = magnitude < 0x0400U ? denormal : normal;
    return __builtin_bit_cast(float, sign | (magnitude >= 0x7c00U ? special | quiet : finite));
}

[[gnu::always_inline]] inline float to_float(float value) { return value; }

/// A NaN keeps its sign and upper bits and becomes quiet.
[[gnu::always_inline]] inline Bf16 to_bf16(float value) {
    const auto bits = __builtin_bit_cast(std::uint32_t, value);
    const std::uint32_t odd = (bits >> 16) & 1U;
    const std::uint32_t rounded = (bits + 0x7fffU + odd) >> 16;
    const std::uint32_t nan = (bits >> 16) | 0x40U;
    return {static_cast<std::uint16_t>((bits & 0x7fffffffU) > 0x7f800000U ? nan : rounded)};
}

/// A NaN keeps its sign and upper bits and becomes quiet.
[[gnu::always_inline]] inline Fp16 to_fp16(float value) {
    const auto bits = __builtin_bit_cast(std::uint32_t, value);
    const std::uint32_t sign = (bits >> 16) & 0x8000U;
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    // Below 2^-14 the result is a multiple of 2^-24: adding 0.5, whose last bit is worth 2^-24, rounds to it.
    const auto shifted = __builtin_bit_cast(std::uint32_t, __builtin_bit_cast(float, magnitude) + 0.5F);
    const std::uint32_t denormal = shifted - __builtin_bit_cast(std::uint32_t, 0.5F);
    // Rounding may carry into the exponent, up to infinity, which is right.
    const std::uint32_t odd = (magnitude >> 13) & 1U;
    const std::uint32_t normal = (magnitude - (112U << 23) + 0x0fffU + odd) >> 13;
    const std::uint32_t nan = 0x7e00U | ((magnitude >> 13) & 0x03ffU);
    const std::uint32_t special = magnitude > 0x7f800000U ? nan : 0x7c00U;
    const std::uint32_t finite = magnitude < 0x38800000U ? denormal : normal;
    return {static_cast<std::uint16_t>(sign | (magnitude >= 0x47800000U ? special : finite))};
}

}  // namespace smlora::cpu
