// 16-bit floating-point formats as bits.
#pragma once

#include "device/runtime.hpp"

#include <bit>
#include <cstdint>

namespace smlora::emulator {

inline float float_of(Format format, std::uint16_t bits) {
    if (format == Format::bf16) return std::bit_cast<float>(std::uint32_t{bits} << 16);
    const std::uint32_t sign = (bits & 0x8000U) << 16;
    const std::uint32_t exponent = bits >> 10 & 0x1fU;
    const std::uint32_t fraction = bits & 0x3ffU;
    if (exponent == 0x1fU) return std::bit_cast<float>(sign | 0x7f800000U | fraction << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
    const float small = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -small : small;
}

}  // namespace smlora::emulator
