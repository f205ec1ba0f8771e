// The scales of a stage that one thread of grouped_product_packed takes, half of them at a time: those of m64 `half`
// of a warpgroup where the reduction is contiguous (MAJOR 0), of 32 of the reduction where it is not.
#pragma once

#include "args/packed_weight.h"
#include "ptx/shared.cuh"
#include "ptx/shared_pairs.cuh"
#include "types.cuh"

namespace smlora::weight {

template <ScaleOrder ORDER, int MAJOR>
struct StageScales;

/// Bytes: of a row or two at once.
template <ScaleOrder ORDER, int MAJOR>
requires(ORDER.bytes == 1) struct StageScales<ORDER, MAJOR> {
    static_assert(ORDER.in_row == 2, "a scale for 32");
    unsigned offset;
    uint32 words[2][MAJOR == 0 ? 2 : 4];

    /// Of warpgroup `half` of the tile; `warp` of its four.
    __device__ __forceinline__ StageScales(int half, int warp, int lane) {
        offset = static_cast<unsigned>(MAJOR == 0 ? half * 2 * ORDER.block_bytes() + warp * 32 + lane / 4 * 2
                                                  : (half * 2 + warp / 2) * ORDER.block_bytes() + lane % 4 * 4);
    }

    template <int HALF>
    __device__ __forceinline__ void load(unsigned scales) {
        const unsigned from = scales + offset;
        if constexpr (MAJOR == 0) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                words[HALF][h] = ptx::load_shared_16(from + HALF * ORDER.block_bytes() + h * 16);
            }
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) words[HALF][i] = ptx::load_shared(from + HALF * 64 + i * 16);
        }
    }

    /// Of two values beside each other in a fragment, one in each half of the word: m64 `m`, rows `h` x 8, k8 `k8` of
    /// k16 step `k`.
    __device__ __forceinline__ uint32 pair(int m, int h, int k, int k8) const {
        if constexpr (MAJOR == 0) {
            return (k / 2 == 0 ? words[m][h] & 0xFFU : words[m][h] >> 8) * 0x00010001U;
        } else {
            // Two columns of blocks are a byte apart.
            const unsigned odd = threadIdx.x / 32 % 2;
            return (words[k / 2][k % 2 * 2 + k8] >> (odd * 8)) & 0x00FF00FFU;
        }
    }
};

/// 16 bits each.
template <ScaleOrder ORDER, int MAJOR>
requires(ORDER.bytes == 2) struct StageScales<ORDER, MAJOR> {
    static constexpr int line_bytes = scale_block * ORDER.bytes;  // of one scale of all rows
    static_assert(ORDER.in_row <= 2, "a scale for 32 or more");
    unsigned offset;
    uint32 words[2][MAJOR == 0 ? 2 * ORDER.in_row : 4];

    __device__ __forceinline__ StageScales(int half, int warp, int lane) {
        if constexpr (MAJOR == 0) {
            offset = static_cast<unsigned>(half * 2 * ORDER.block_bytes() + (warp * 16 + lane / 4) * ORDER.bytes);
        } else {
            offset = static_cast<unsigned>((half * 2 + warp / 2) * ORDER.block_bytes() +
                                           warp % 2 * 32 / ORDER.columns_of_scale() * line_bytes + lane % 4 * 4);
        }
    }

    template <int HALF>
    __device__ __forceinline__ void load(unsigned scales) {
        const unsigned from = scales + offset;
        if constexpr (MAJOR == 0) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
#pragma unroll
                for (int i = 0; i < ORDER.in_row; ++i) {
                    words[HALF][h * ORDER.in_row + i] =
                        ptx::load_shared_16(from + HALF * ORDER.block_bytes() + h * 16 + i * line_bytes);
                }
            }
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) words[HALF][i] = ptx::load_shared(from + HALF * 64 + i * 16);
        }
    }

    __device__ __forceinline__ uint32 pair(int m, int h, int k, int k8) const {
        if constexpr (MAJOR == 0) {
            return words[m][h * ORDER.in_row + (ORDER.in_row == 1 ? 0 : k / 2)] * 0x00010001U;
        } else {
            return words[k / 2][k % 2 * 2 + k8];
        }
    }
};

}  // namespace smlora::weight
