// Codes e2m1 as bf16.
#pragma once

#include "types.cuh"

namespace smlora::weight {

/// 2^-126 times codes `i` (0 to 3) and i + 4 of a word of eight: their bits in those of bf16, subnormal numbers too.
__device__ __forceinline__ uint32 expand_e2m1(uint32 word, int i) {
    const uint32 codes = word << (12 - 4 * i);
    return (codes & 0x80008000U) | ((codes >> 6) & 0x01C001C0U);
}

}  // namespace smlora::weight
