// The format MXFP8: codes e4m3 and a scale e8m0 for 32 along a row of the matrix.
#pragma once

#include "args/packed_weight.h"
#include "ptx/bf16x2.cuh"
#include "types.cuh"
#include "weight/e4m3.cuh"

namespace smlora::weight {

struct Mxfp8 {
    static constexpr int code_bits = 8;
    static constexpr ScaleOrder order = scale_order(unpack_weights::mxfp8, 32);

    __device__ __forceinline__ explicit Mxfp8(const float*) {}

    /// 2^(scale - 127 + 120) as bf16 in both halves; `scales`: one in each half. Up to 134, which is a factor of 128.
    static __device__ __forceinline__ uint32 factor(uint32 scales) { return scales * 0x80U + 120U * 0x00800080U; }

    static __device__ __forceinline__ uint32 decode(uint32 word, int i, uint32 factor) {
        return ptx::multiply_bf16x2(expand_e4m3(word, i), factor);
    }
};

}  // namespace smlora::weight
