// The format FP8: codes e4m3 and a scale fp32 for squares of the matrix whose side is a multiple of 64.
#pragma once

#include "args/packed_weight.h"
#include "types.cuh"
#include "weight/e4m3.cuh"
#include "weight/split_factor.cuh"

namespace smlora::weight {

struct Fp8 {
    static constexpr int code_bits = 8;
    static constexpr ScaleOrder order = scale_order(unpack_weights::fp8, 128);

    __device__ __forceinline__ explicit Fp8(const float*) {}

    /// The split is of 2^120 times the scale.
    static __device__ __forceinline__ SplitFactor factor(uint32 split) { return SplitFactor(split); }

    static __device__ __forceinline__ uint32 decode(uint32 word, int i, SplitFactor factor) {
        return factor.times(expand_e4m3(word, i));
    }
};

}  // namespace smlora::weight
