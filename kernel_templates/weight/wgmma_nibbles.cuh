// Weights with codes of half a byte of grouped_product_packed: codes and scales to a stage by TMA, fragments for wgmma
// out of it. `Format` is one of weight/{mxfp4,int4}.cuh.
//
// A thread's fragments come out of ldmatrix without moving bits between threads, for a price:
//   Reduction contiguous: in each 32 of the reduction, slot 16 s + 8 h + 2 q + j of a fragment has element
//     8 q + 2 s + h + 4 j. The rows that are multiplied with it have the same order: permute_rows.cuh.
//   Reduction strided: row 16 w + 8 h + r of m64 `m` is column 32 w + 4 r + 2 m + h of the warpgroup's 128.
#pragma once

#include "args/packed_weight.h"
#include "ptx/bulk_load.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/tma.cuh"
#include "swizzle.cuh"
#include "types.cuh"
#include "weight/stage_scales.cuh"
#include "weight/wgmma.cuh"

namespace smlora::weight {

/// A format whose codes are decoded where they are multiplied.
template <class Format>
concept Decoded = requires {
    Format::order;
};

template <Decoded Format, int MAJOR, int DEPTH>
struct Wgmma<Format, bf16, MAJOR, DEPTH> {
    static_assert(DEPTH == scale_block, "a step takes whole blocks of scales");
    static constexpr int columns = grouped_product_wgmma::tile_columns;
    static constexpr unsigned scales_at = nibble_code_bytes(columns, DEPTH);

    template <int CLUSTER>
    static constexpr int copies = MAJOR == 0 ? columns / scale_block : 1;

    /// `map`: of the codes, in the arguments of the kernel, where the scales are, too.
    template <int CLUSTER>
    static __device__ __forceinline__ void copy(int number, unsigned target, const TensorMap& map, unsigned barrier,
                                                int matrix, int column, int red) {
        static_assert(CLUSTER == 1, "blocks copy packed weights for themselves");
        constexpr int codes_in_unit = 4;
        constexpr int block_bytes = Format::order.block_bytes();
        const int own = number * scale_block;
        const int x = MAJOR == 0 ? red : column;
        const int y = MAJOR == 0 ? column + own : red;
        ptx::tma_load(target + static_cast<unsigned>(own * DEPTH / 2), map, barrier, x / codes_in_unit, y, matrix);
        const PackedScales& scales = scales_beside(map);
        const auto* const from = static_cast<const unsigned char*>(scales.data) + matrix * scales.expert_stride +
                                 static_cast<int64>(y / scale_block) * scales.row_stride +
                                 static_cast<int64>(x / scale_block) * block_bytes;
        constexpr unsigned bytes = block_bytes * (MAJOR == 0 ? 1 : columns / scale_block);
        ptx::bulk_load(target + scales_at + static_cast<unsigned>(number) * bytes, from, bytes, barrier);
        // The producer expects as many bytes as the stage has room for.
        constexpr unsigned unused =
            Format::stage_bytes(columns, DEPTH) - nibble_copied_bytes(Format::order, columns, DEPTH);
        if (unused > 0 && number == 0) ptx::complete_bytes(barrier, unused);
    }

    /// The map is the first member of the first member of the arguments, so it has their address.
    static __device__ __forceinline__ const PackedScales& scales_beside(const TensorMap& map) {
        return reinterpret_cast<const GroupedProductPackedArgs&>(map).scales;
    }

    /// One thread's codes of a step in registers, and the fragments that they become. They come in halves; fragment
    /// `j` of eight needs half j / 4 alone.
    struct Decoder {
        unsigned codes_offset;  ///< in a stage, of the lane's row for ldmatrix
        uint32 codes[2][4];
        StageScales<Format::order, MAJOR> scales;

        /// m64 and k16 step of fragment `j`.
        static constexpr int m_of(int j) { return MAJOR == 0 ? j / 4 : j % 2; }
        static constexpr int k_of(int j) { return MAJOR == 0 ? j % 4 : j / 2; }

        /// Of warpgroup `half` of the tile.
        __device__ __forceinline__ explicit Decoder(int half)
            : scales(half, static_cast<int>(threadIdx.x) >> 5 & 3, static_cast<int>(threadIdx.x) & 31) {
            const int lane = static_cast<int>(threadIdx.x) & 31;
            const int warp = static_cast<int>(threadIdx.x) >> 5 & 3;
            if constexpr (MAJOR == 0) {
                codes_offset = swizzled<2>(half * 128 + warp * 16 + lane % 16, lane / 16);
            } else {
                codes_offset = swizzled<8>(lane, half * 4 + warp);
            }
        }

        template <int HALF>
        __device__ __forceinline__ void load(unsigned stage) {
            const unsigned from = stage + codes_offset;
            if constexpr (MAJOR == 0) {
                ptx::ldmatrix_x4(codes[HALF], from + HALF * 64 * DEPTH / 2);
            } else {
                ptx::ldmatrix_x4_trans(codes[HALF], from + HALF * 32 * columns / 2);
            }
            scales.template load<HALF>(stage + scales_at);
        }

        template <int J>
        __device__ __forceinline__ void fragment(uint32 (&a)[4]) const {
            constexpr int m = m_of(J);
            constexpr int k = k_of(J);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int k8 = i / 2;
                const int h = i % 2;
                const uint32 word = MAJOR == 0 ? codes[m][k / 2 * 2 + h] : codes[k / 2][k % 2 * 2 + k8];
                const int nibble = MAJOR == 0 ? k % 2 * 2 + k8 : 2 * m + h;
                a[i] = Format::decode(word, nibble, Format::factor(scales.pair(m, h, k, k8)));
            }
        }
    };
};

}  // namespace smlora::weight
