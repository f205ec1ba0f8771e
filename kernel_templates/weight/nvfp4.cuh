// The format NVFP4: codes e2m1, two in a byte, a scale e4m3 for 16 along a row of the matrix, arranged as bf16, and one
// fp32 for a range of an expert's rows.
#pragma once

#include "args/packed_weight.h"
#include "ptx/bf16x2.cuh"
#include "types.cuh"
#include "weight/e2m1.cuh"
#include "weight/split_factor.cuh"
#include "weight/stage_scales.cuh"

namespace smlora::weight {

struct Nvfp4 {
    static constexpr int code_bits = 4;
    static constexpr ScaleOrder order = scale_order(unpack_weights::nvfp4, 16);

    __device__ __forceinline__ explicit Nvfp4(const float*) {}

    struct Factor {
        uint32 scales;
        SplitFactor outer;
    };

    /// 2^119 times the scales: the largest that bf16 has for 448. The split is of 2^7 times the outer scale.
    static __device__ __forceinline__ Factor factor(ScalesAndSplit scales) {
        return {ptx::multiply_bf16x2(scales.scales, 0x7B007B00U), SplitFactor(scales.split)};
    }

    /// The product of a code and its scale is exact.
    static __device__ __forceinline__ uint32 decode(uint32 word, int i, Factor factor) {
        return factor.outer.times(ptx::multiply_bf16x2(expand_e2m1(word, i), factor.scales));
    }
};

}  // namespace smlora::weight
