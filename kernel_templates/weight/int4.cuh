// The format int4: codes that are 8 more than a number from -8 to 7, two in a byte, and a scale bf16 for BLOCK along a
// row of the matrix.
#pragma once

#include "args/packed_weight.h"
#include "ptx/bf16x2.cuh"
#include "types.cuh"

namespace smlora::weight {

template <int BLOCK>
struct Int4 {
    static constexpr int code_bits = 4;
    static constexpr ScaleOrder order = scale_order(unpack_weights::int4, BLOCK);

    __device__ __forceinline__ explicit Int4(const float*) {}

    static __device__ __forceinline__ uint32 factor(uint32 scales) { return scales; }

    /// Codes `i` (0 to 3) and i + 4 of a word. 128 + code are the bits of a code below those of 128; the difference
    /// is exact, and the product rounded once.
    static __device__ __forceinline__ uint32 decode(uint32 word, int i, uint32 factor) {
        constexpr uint32 of_128 = 0x43004300U;
        constexpr uint32 minus_136 = 0xC308C308U;
        const uint32 codes = ((word >> (4 * i)) & 0x000F000FU) | of_128;
        return ptx::multiply_bf16x2(ptx::add_bf16x2(codes, minus_136), factor);
    }
};

}  // namespace smlora::weight
