// The format MXFP4: codes e2m1, two in a byte, and a scale e8m0 for 32 along a row of the matrix.
#pragma once

#include "args/packed_weight.h"
#include "ptx/bf16x2.cuh"
#include "types.cuh"
#include "weight/e2m1.cuh"

namespace smlora::weight {

struct Mxfp4 {
    static constexpr int code_bits = 4;
    static constexpr ScaleOrder order = scale_order(unpack_weights::mxfp4, 32);

    __device__ __forceinline__ explicit Mxfp4(const float*) {}

    /// 2^(scale - 127 + 126) as bf16 in both halves; `scales`: one in each half. Up to 128, which is a factor of 2.
    static __device__ __forceinline__ uint32 factor(uint32 scales) { return scales * 0x80U + 126U * 0x00800080U; }

    static __device__ __forceinline__ uint32 decode(uint32 word, int i, uint32 factor) {
        return ptx::multiply_bf16x2(expand_e2m1(word, i), factor);
    }
};

}  // namespace smlora::weight
