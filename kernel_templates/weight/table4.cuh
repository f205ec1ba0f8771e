// The formats NF4 and FP4 of bitsandbytes: codes of four bits that choose from a table of fp32, two in a byte, the
// first in its upper half, and a scale fp32 for a multiple of 64 along a row of the matrix.
#pragma once

#include "args/packed_weight.h"
#include "ptx/convert.cuh"
#include "types.cuh"
#include "weight/stage_scales.cuh"

namespace smlora::weight {

struct Table4 {
    static constexpr int code_bits = 4;
    static constexpr ScaleOrder order = scale_order(unpack_weights::nf4, 64);

    /// Each half of a warp holds the table, a value a lane: a shuffle looks up 32 values at once, and what is above
    /// four bits of a lane's number matters to nobody.
    float value;

    __device__ __forceinline__ explicit Table4(const float* table) : value(table[threadIdx.x % 16]) {}

    static __device__ __forceinline__ ScalePair factor(ScalePair scales) { return scales; }

    /// Product and rounding are those of unpack_weights.cuh.
    __device__ __forceinline__ uint32 decode(uint32 word, int i, ScalePair factor) const {
        const int nibble = i ^ 1;
        const float low = __shfl_sync(0xFFFFFFFFU, value, static_cast<int>(word >> (4 * nibble)));
        const float high = __shfl_sync(0xFFFFFFFFU, value, static_cast<int>(word >> (4 * nibble + 16)));
        return ptx::bf16x2_from_floats(__fmul_rn(low, factor.first), __fmul_rn(high, factor.second));
    }
};

}  // namespace smlora::weight
