// Codes e4m3 as bf16.
#pragma once

#include "types.cuh"

namespace smlora::weight {

/// 2^-120 times codes `i` (0 or 1) and i + 2 of a word of four: their bits in those of bf16, subnormal numbers too.
/// NaN becomes 480.
__device__ __forceinline__ uint32 expand_e4m3(uint32 word, int i) {
    const uint32 codes = word << (8 - 8 * i);
    return (codes & 0x80008000U) | ((codes >> 4) & 0x07F007F0U);
}

}  // namespace smlora::weight
