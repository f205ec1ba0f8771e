// The scales of a stage that one thread of grouped_product_packed takes, in `parts` as weight/stage_codes.cuh has them:
// the halves are those of m64 0 and 1 where the reduction is contiguous (MAJOR 0), and of 32 of the reduction where it
// is not.
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
    static constexpr int parts = 2;
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

struct ScalesAndSplit {
    uint32 scales;
    uint32 split;
};

/// 16 bits each, perhaps with the split of a factor of all.
template <ScaleOrder ORDER, int MAJOR>
requires(ORDER.bytes == 2) struct StageScales<ORDER, MAJOR> {
    static constexpr int line_bytes = scale_block * ORDER.bytes;  // of one scale of all rows
    static_assert(ORDER.in_row <= 4, "a scale for 16 or more");
    static constexpr int parts = MAJOR == 1 && ORDER.has_split ? 4 : 2;
    // A lane's values of 32 of a row are eight that follow each other.
    static constexpr int lane_scales = ORDER.in_row == 4 ? 2 : ORDER.in_row;
    unsigned offset;
    unsigned split_offset;
    uint32 words[2][MAJOR == 0 ? 2 : 8 / parts];
    uint32 splits[2];

    __device__ __forceinline__ StageScales(int half, int warp, int lane) {
        const int block = (half * 2 + (MAJOR == 0 ? 0 : warp / 2)) * ORDER.block_bytes();
        int within = 0;
        if constexpr (MAJOR == 0) {
            within = (warp * 16 + lane / 4) * ORDER.bytes;
            if constexpr (ORDER.in_row == 4) within += lane % 4 / 2 * line_bytes;
        } else {
            // Four columns of a lane follow each other.
            within = (warp % 2 * 32 + lane / 4 * 4) / ORDER.columns_of_scale() * line_bytes + lane % 4 * 4;
        }
        offset = static_cast<unsigned>(block + within);
        split_offset = static_cast<unsigned>(block + ORDER.split_at());
    }

    template <int PART>
    __device__ __forceinline__ void load(unsigned scales) {
        constexpr int half = PART * 2 / parts;
        const unsigned of_half = MAJOR == 0 ? half * ORDER.block_bytes() : 0;
        if constexpr (MAJOR == 0) {
            const unsigned from = scales + offset + of_half;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const uint32 first = ptx::load_shared_16(from + h * 16);
                words[half][h] = first;
                if constexpr (lane_scales == 2) {
                    const uint32 second = ptx::load_shared_16(from + h * 16 + ORDER.in_row / 2 * line_bytes);
                    words[half][h] = __byte_perm(first, second, 0x5410);
                }
            }
        } else {
            const unsigned from = scales + offset + PART * (128 / parts);
#pragma unroll
            for (int i = 0; i < 8 / parts; ++i) words[PART % 2][i] = ptx::load_shared(from + i * 16);
        }
        if constexpr (ORDER.has_split && PART % (parts / 2) == 0) {
            splits[half] = ptx::load_shared(scales + split_offset + of_half);
        }
    }

    __device__ __forceinline__ auto pair(int m, int h, int k, int k8) const {
        if constexpr (ORDER.has_split) {
            return ScalesAndSplit{scales_of(m, h, k, k8), splits[MAJOR == 0 ? m : k / 2]};
        } else {
            return scales_of(m, h, k, k8);
        }
    }

 private:
    __device__ __forceinline__ uint32 scales_of(int m, int h, int k, int k8) const {
        if constexpr (MAJOR == 0) {
            return __byte_perm(words[m][h], 0, lane_scales == 2 && k >= 2 ? 0x3232 : 0x1010);
        } else {
            return words[k * parts / 4 % 2][(k * 2 + k8) % (8 / parts)];
        }
    }
};

struct ScalePair {
    float first;
    float second;
};

/// fp32 of a row.
template <ScaleOrder ORDER, int MAJOR>
requires(ORDER.bytes == 4 && ORDER.rows_of_scale == 1) struct StageScales<ORDER, MAJOR> {
    static_assert(ORDER.in_row == 1, "a scale for 64 or more");
    unsigned offset;
    static constexpr int parts = MAJOR == 0 ? 2 : 4;
    float scales[2][MAJOR == 0 ? 2 : 4];

    __device__ __forceinline__ StageScales(int half, int warp, int lane) {
        offset =
            static_cast<unsigned>(MAJOR == 0 ? half * 2 * ORDER.block_bytes() + (warp * 16 + lane / 4) * ORDER.bytes
                                             : (half * 2 + warp / 2) * ORDER.block_bytes() + lane % 4 * 8);
    }

    template <int PART>
    __device__ __forceinline__ void load(unsigned stage) {
        const unsigned from = stage + offset;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if constexpr (MAJOR == 0) {
                scales[PART][i] = __uint_as_float(ptx::load_shared(from + PART * ORDER.block_bytes() + i * 32));
            } else {
                unsigned two[2];
                ptx::load_shared(two, from + PART * 64 + i * 32);
                scales[PART % 2][2 * i] = __uint_as_float(two[0]);
                scales[PART % 2][2 * i + 1] = __uint_as_float(two[1]);
            }
        }
    }

    __device__ __forceinline__ ScalePair pair(int m, int h, int k, int k8) const {
        if constexpr (MAJOR == 0) {
            return {scales[m][h], scales[m][h]};
        } else {
            return {scales[k % 2][k8 * 2], scales[k % 2][k8 * 2 + 1]};
        }
    }
};

/// The split alone, where the whole block has one scale.
template <ScaleOrder ORDER, int MAJOR>
requires(ORDER.rows_of_scale == scale_block && ORDER.has_split) struct StageScales<ORDER, MAJOR> {
    static constexpr int parts = 2;
    unsigned offset;
    uint32 splits[2];

    __device__ __forceinline__ StageScales(int half, int warp, int /*lane*/) {
        const int block = half * 2 + (MAJOR == 0 ? 0 : warp / 2);
        offset = static_cast<unsigned>(block * ORDER.block_bytes() + ORDER.split_at());
    }

    template <int HALF>
    __device__ __forceinline__ void load(unsigned stage) {
        splits[HALF] = ptx::load_shared(stage + offset + (MAJOR == 0 ? HALF * ORDER.block_bytes() : 0));
    }

    __device__ __forceinline__ uint32 pair(int m, int /*h*/, int k, int /*k8*/) const {
        return splits[MAJOR == 0 ? m : k / 2];
    }
};

}  // namespace smlora::weight
