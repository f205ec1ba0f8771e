// Weights of grouped_product_mma_packed: codes and scales to a stage with cp.async, from there to values that are
// loaded like plain weights. `Format` is one of weight/{mxfp4,mxfp8,nvfp4,int4,fp8,table4}.cuh.
#pragma once

#include "args/packed_weight.h"
#include "ptx/cp_async.cuh"
#include "ptx/shared.cuh"
#include "ptx/shared_pairs.cuh"
#include "swizzle.cuh"
#include "types.cuh"
#include "weight/mma.cuh"
#include "weight/stage_scales.cuh"

namespace smlora::weight {

/// A format whose stages hold codes and scales.
template <class Format>
struct Packed {
    static constexpr int stage_bytes(int columns, int depth) {
        return mma_packed_stage_bytes(Format::code_bits, Format::order, columns, depth);
    }
};

template <class Format>
inline constexpr bool is_decoded<Packed<Format>> = true;

template <class Format, class C, class L, int MAJOR, int DEPTH, int STRIDE>
struct Mma<Packed<Format>, C, L, MAJOR, DEPTH, STRIDE> : Mma<Plain, C, L, MAJOR, DEPTH, STRIDE> {
    static constexpr ScaleOrder order = Format::order;
    static constexpr int bits = Format::code_bits;
    static constexpr int threads = L::threads;

    static constexpr int matrix_rows = MAJOR == 0 ? C::OUT : DEPTH;
    static constexpr int matrix_columns = MAJOR == 0 ? DEPTH : C::OUT;
    static constexpr int row_bytes = matrix_columns * bits / 8;
    static_assert(row_bytes % 16 == 0, "rows of codes are copied in pieces of 16 bytes");

    // Of a stage.
    static constexpr int rows = MAJOR == 0 ? C::TILE_N : C::TILE_K;
    static constexpr int columns = MAJOR == 0 ? C::TILE_K : C::TILE_N;
    static constexpr unsigned scales_at = stage_code_bytes(bits, rows, columns);
    static_assert(rows % scale_block == 0 && columns % scale_block == 0, "a stage has whole blocks of scales");

    struct Parts {
        const unsigned char* codes;
        PackedScales scales;
        const float* table;
    };

    /// Copies one step's codes and scales of an expert's matrix.
    static __device__ __forceinline__ void copy(unsigned target, const Parts& parts, int expert, int column, int red) {
        const int first_row = MAJOR == 0 ? column : red;
        const int first_column = MAJOR == 0 ? red : column;
        const auto* const codes = parts.codes + static_cast<int64>(expert) * matrix_rows * row_bytes;
        copy_codes(target, codes, first_row, first_column * bits / 8);
        const auto* const scales = static_cast<const unsigned char*>(parts.scales.data) +
                                   expert * parts.scales.expert_stride +
                                   first_row / scale_block * parts.scales.row_stride +
                                   static_cast<int64>(first_column / scale_block) * order.block_bytes();
        copy_scales(target + scales_at, scales, parts.scales.row_stride);
    }

    /// Makes the values of a step out of its codes, a quarter at a time: each thread eight beside each other in some
    /// rows.
    class Decoder {
        static constexpr int chunks = columns / 8;
        static constexpr int rows_a_pass = threads / chunks;
        static constexpr int passes = rows / rows_a_pass;
        static constexpr int passes_a_part = passes * 16 / C::TILE_K;
        static_assert(threads % chunks == 0 && rows % rows_a_pass == 0 && passes % (C::TILE_K / 16) == 0,
                      "all threads decode as much, and as much in every part");
        static_assert(scale_block % rows_a_pass == 0,
                      "a thread's rows are at the same places of every block of scales");

     public:
        __device__ __forceinline__ explicit Decoder(const Parts& parts)
            : format_(parts.table),
              row_(static_cast<int>(threadIdx.x) / chunks),
              chunk_(static_cast<int>(threadIdx.x) % chunks) {}

        /// From the stage at `stage` to `values`.
        __device__ __forceinline__ void decode(unsigned values, unsigned stage, int part) const {
            uint32 codes[passes_a_part][bits / 4];
            decltype(scales(0U, 0)) of_pass[passes_a_part];
#pragma unroll
            for (int i = 0; i < passes_a_part; ++i) {
                const int row = (part * passes_a_part + i) * rows_a_pass;
                const unsigned own = static_cast<unsigned>((row_ * chunks + chunk_) * bits);
                load(codes[i], stage + own + static_cast<unsigned>(row * chunks * bits));
                of_pass[i] = scales(stage + scales_at, row);
            }
#pragma unroll
            for (int i = 0; i < passes_a_part; ++i) {
                const int row = (part * passes_a_part + i) * rows_a_pass;
                uint32 chunk[4];
                decode_chunk(chunk, codes[i], Format::factor(of_pass[i]));
                ptx::store_shared(values + swizzled<chunks>(row_ + row, chunk_), chunk);
            }
        }

     private:
        static __device__ __forceinline__ void load(uint32 (&codes)[1], unsigned address) {
            codes[0] = ptx::load_shared(address);
        }
        static __device__ __forceinline__ void load(uint32 (&codes)[2], unsigned address) {
            ptx::load_shared(codes, address);
        }

        /// Of the thread's values in the row that is `row` after its first, as Format::factor takes them: each of two
        /// values has the same.
        __device__ __forceinline__ auto scales(unsigned from, int row) const {
            const int column = chunk_ * 8;
            const int block = MAJOR == 0 ? row / scale_block : column / scale_block;
            from += static_cast<unsigned>(block * order.block_bytes());
            const int first = order.in_block(row_, column % scale_block / order.columns_of_scale());
            const unsigned at =
                from + static_cast<unsigned>((first + order.in_block(row % scale_block, 0)) * order.bytes);
            const unsigned split_at = from + static_cast<unsigned>(order.split_at());
            if constexpr (order.rows_of_scale == scale_block) {
                return ptx::load_shared(split_at);
            } else if constexpr (order.bytes == 4) {
                const float scale = __uint_as_float(ptx::load_shared(at));
                return ScalePair{scale, scale};
            } else if constexpr (order.bytes == 2 && order.has_split) {
                return ScalesAndSplit{ptx::load_shared_16(at) * 0x00010001U, ptx::load_shared(split_at)};
            } else if constexpr (order.bytes == 2) {
                return ptx::load_shared_16(at) * 0x00010001U;
            } else {
                return ptx::load_shared_8(at) * 0x00010001U;
            }
        }

        /// Eight values in their order.
        template <int WORDS, class Factor>
        __device__ __forceinline__ void decode_chunk(uint32 (&values)[4], const uint32 (&codes)[WORDS],
                                                     Factor factor) const {
            if constexpr (bits == 4) {
                uint32 apart[4];  // codes i and i + 4
#pragma unroll
                for (int i = 0; i < 4; ++i) apart[i] = format_.decode(codes[0], i, factor);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    values[i] = __byte_perm(apart[i % 2 * 2], apart[i % 2 * 2 + 1], i < 2 ? 0x5410 : 0x7632);
                }
            } else {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const uint32 even = format_.decode(codes[i], 0, factor);  // codes 0 and 2
                    const uint32 odd = format_.decode(codes[i], 1, factor);   // 1 and 3
                    values[2 * i] = __byte_perm(even, odd, 0x5410);
                    values[2 * i + 1] = __byte_perm(even, odd, 0x7632);
                }
            }
        }

        Format format_;
        int row_;    ///< of the stage, the first of the thread's
        int chunk_;  ///< of eight columns
    };

 private:
    static __device__ __forceinline__ void copy_codes(unsigned target, const unsigned char* codes, int first_row,
                                                      int first_byte) {
        constexpr int pieces = columns * bits / 8 / 16;  // of a row
        constexpr int rows_a_pass = threads / pieces;
        constexpr bool row_edge = matrix_rows % rows != 0;
        constexpr bool column_edge = matrix_columns % columns != 0;
        static_assert(threads % pieces == 0, "a thread keeps its place in a row over the passes");
        const int thread_row = static_cast<int>(threadIdx.x) / pieces;
        const int piece = static_cast<int>(threadIdx.x) % pieces;
        const int byte = first_byte + piece * 16;
        const unsigned char* const from = codes + static_cast<int64>(first_row + thread_row) * row_bytes + byte;
#pragma unroll
        for (int pass = 0; pass < ceil_div(rows, rows_a_pass); ++pass) {
            const int row = thread_row + pass * rows_a_pass;
            if (rows % rows_a_pass != 0 && row >= rows) break;
            const unsigned to = target + static_cast<unsigned>((row * pieces + piece) * 16);
            if constexpr (row_edge || column_edge) {
                const bool inside = (!column_edge || byte < row_bytes) && (!row_edge || first_row + row < matrix_rows);
                // Nothing is read of what is not inside.
                ptx::cp_async_16(to, from + static_cast<int64>(pass) * rows_a_pass * row_bytes, inside ? 16U : 0U);
            } else {
                ptx::cp_async_16(to, from + static_cast<int64>(pass) * rows_a_pass * row_bytes);
            }
        }
    }

    /// The stage's blocks, of which those beside each other follow each other.
    static __device__ __forceinline__ void copy_scales(unsigned target, const unsigned char* scales, int64 stride) {
        constexpr int line = columns / scale_block * order.block_bytes() / 16;  // pieces of 16 bytes
        constexpr int pieces = rows / scale_block * line;
#pragma unroll
        for (int pass = 0; pass < ceil_div(pieces, threads); ++pass) {
            const int piece = static_cast<int>(threadIdx.x) + pass * threads;
            if (pieces % threads != 0 && piece >= pieces) break;
            ptx::cp_async_16(target + static_cast<unsigned>(piece * 16),
                             scales + piece / line * stride + piece % line * 16);
        }
    }
};

}  // namespace smlora::weight
