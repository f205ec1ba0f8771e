// A factor of fp32 as the sum of two bf16, for products with codes that are rounded as if by the factor itself:
// args/split_factor.h.
#pragma once

#include "ptx/bf16x2.cuh"
#include "types.cuh"

namespace smlora::weight {

struct SplitFactor {
    uint32 high;  ///< in both halves
    uint32 low;

    /// Of a word that has `high` in its lower half.
    __device__ __forceinline__ explicit SplitFactor(uint32 split)
        : high(__byte_perm(split, 0, 0x1010)), low(__byte_perm(split, 0, 0x3232)) {}

    __device__ __forceinline__ uint32 times(uint32 values) const {
        return ptx::multiply_add_bf16x2(values, high, ptx::multiply_bf16x2(values, low));
    }
};

}  // namespace smlora::weight
