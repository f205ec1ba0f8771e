// Weights of grouped_product_packed: codes and scales to a stage by TMA, fragments for wgmma out of it. `Format` is one
// of weight/{mxfp4,mxfp8,nvfp4,int4,fp8,table4}.cuh.
#pragma once

#include "args/packed_weight.h"
#include "ptx/bulk_load.cuh"
#include "ptx/tma.cuh"
#include "types.cuh"
#include "weight/stage_codes.cuh"
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
    static constexpr unsigned scales_at = stage_code_bytes(Format::code_bits, columns, DEPTH);

    static constexpr int code_bits = Format::code_bits;
    static constexpr int codes_in_unit = 16 / code_bits;

    /// A copy has 64 columns, or 128 bytes of them where the reduction is strided.
    static constexpr int copied_columns = MAJOR == 0 ? scale_block : 128 * 8 / code_bits;
    template <int CLUSTER>
    static constexpr int copies = columns / copied_columns;

    /// `map`: of the codes, in the arguments of the kernel, where the scales are, too.
    template <int CLUSTER>
    static __device__ __forceinline__ void copy(int number, unsigned target, const TensorMap& map, unsigned barrier,
                                                int matrix, int column, int red) {
        static_assert(CLUSTER == 1, "blocks copy packed weights for themselves");
        constexpr int block_bytes = Format::order.block_bytes();
        const int own = number * copied_columns;
        const int x = MAJOR == 0 ? red : column + own;
        const int y = MAJOR == 0 ? column + own : red;
        ptx::tma_load(target + static_cast<unsigned>(own * DEPTH * code_bits / 8), map, barrier, x / codes_in_unit, y,
                      matrix);
        const PackedScales& scales = args_around(map).scales;
        const auto* const from = static_cast<const unsigned char*>(scales.data) + matrix * scales.expert_stride +
                                 static_cast<int64>(y / scale_block) * scales.row_stride +
                                 static_cast<int64>(x / scale_block) * block_bytes;
        constexpr unsigned bytes = block_bytes * (copied_columns / scale_block);
        ptx::bulk_load(target + scales_at + static_cast<unsigned>(number) * bytes, from, bytes, barrier);
        // The producer expects as many bytes as the stage has room for.
        constexpr unsigned unused = packed_stage_bytes(code_bits, Format::order, columns, DEPTH) -
                                    stage_copied_bytes(code_bits, Format::order, columns, DEPTH);
        if (unused > 0 && number == 0) ptx::complete_bytes(barrier, unused);
    }

    /// The map is the first member of the first member of the arguments, so it has their address.
    static __device__ __forceinline__ const GroupedProductPackedArgs& args_around(const TensorMap& map) {
        return reinterpret_cast<const GroupedProductPackedArgs&>(map);
    }

    /// One thread's codes of a step in registers, and the fragments that they become.
    struct Decoder {
        using Codes = StageCodes<code_bits, MAJOR, columns, DEPTH>;
        using Scales = StageScales<Format::order, MAJOR>;
        Codes codes;
        Scales scales;
        Format format;

        /// m64 and k16 step of fragment `j`.
        static constexpr int m_of(int j) { return MAJOR == 0 ? j / 4 : j % 2; }
        static constexpr int k_of(int j) { return MAJOR == 0 ? j % 4 : j / 2; }

        /// Of warpgroup `half` of the tile.
        __device__ __forceinline__ Decoder(int half, const TensorMap& map)
            : codes(half, static_cast<int>(threadIdx.x) >> 5 & 3, static_cast<int>(threadIdx.x) & 31),
              scales(half, static_cast<int>(threadIdx.x) >> 5 & 3, static_cast<int>(threadIdx.x) & 31),
              format(args_around(map).table) {}

        /// What fragments 2 PAIR and 2 PAIR + 1 need and those before them did not.
        template <int PAIR>
        __device__ __forceinline__ void load(unsigned stage) {
            if constexpr (PAIR * Codes::parts % 4 == 0) codes.template load<PAIR * Codes::parts / 4>(stage);
            if constexpr (PAIR * Scales::parts % 4 == 0)
                scales.template load<PAIR * Scales::parts / 4>(stage + scales_at);
        }

        template <int J>
        __device__ __forceinline__ void fragment(uint32 (&a)[4]) const {
            constexpr int m = m_of(J);
            constexpr int k = k_of(J);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int k8 = i / 2;
                const int h = i % 2;
                a[i] = format.decode(codes.word(m, h, k, k8), Codes::code(m, h, k, k8),
                                     Format::factor(scales.pair(m, h, k, k8)));
            }
        }
    };
};

}  // namespace smlora::weight
