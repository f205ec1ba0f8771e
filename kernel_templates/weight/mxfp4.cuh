// The format MXFP4: codes e2m1, two in a byte, and a scale e8m0 for 32 along a row of the matrix.
#pragma once

#include "args/packed_weight.h"
#include "ptx/bf16x2.cuh"
#include "types.cuh"

namespace smlora::weight {

struct Mxfp4 {
    static constexpr ScaleOrder order = scale_order(unpack_weights::mxfp4, 32);
    static constexpr int stage_bytes(int columns, int depth) { return nibble_stage_bytes(order, columns, depth); }

    /// Codes `i` (0 to 3) and i + 4 of a word as bf16 whose exponent is 126 too small.
    static __device__ __forceinline__ uint32 expand(uint32 word, int i) {
        const uint32 codes = word << (12 - 4 * i);
        return (codes & 0x80008000U) | ((codes >> 6) & 0x01C001C0U);
    }

    /// 2^(scale - 127 + 126) as bf16 in both halves; `scales`: one in each half. Up to 128, which is a factor of 2.
    static __device__ __forceinline__ uint32 factor(uint32 scales) { return scales * 0x80U + 126U * 0x00800080U; }

    static __device__ __forceinline__ uint32 decode(uint32 word, int i, uint32 factor) {
        return ptx::multiply_bf16x2(expand(word, i), factor);
    }
};

}  // namespace smlora::weight
