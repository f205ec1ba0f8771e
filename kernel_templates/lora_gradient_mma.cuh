// Gradients of the adapter on tensor cores, sm_80 and up: out_e = wide_e^T rank_rows_e, a product whose reduction runs
// over the rows of an expert. Streams the wide operand (x or dy) once.
//
// A persistent grid walks the items (expert, chunk of rows, column tile, rank tile), column tiles fastest, so that the
// blocks that share rows run together. An expert with more than `chunk_rows` rows is cut into chunks, whose sums go to
// `partials` in fp32; lora_gradient_reduce adds them in order. No atomics: results are bitwise repeatable.
//
// Roles: all warps copy (cp.async, STAGES deep, rows gathered), then all multiply; warp w owns TILE_C / WARPS columns
// of the tile and all its TILE_R ranks.
//
// Shared memory
//   STAGES x TILE_K x (TILE_C + TILE_R) x 2, 16-byte chunks swizzled; the same bytes stage the output tile in fp32
//   prefix       (E + 1) x 4   chunks before each expert, at least one for each
//   split_prefix (E + 1) x 4   the same, counting only experts with several chunks: their slots in `partials`
//   warp_totals  WARPS x 4
//
// Compile-time (struct C): E, WIDE, RANK, RANK_STRIDE, ROWS, TOP_K, HAS_GATES, TILE_C, TILE_R, TILE_K, WARPS, STAGES;
// types Element, Output, Gate, Index. WIDE and RANK_STRIDE are multiples of 8, every row 16-byte aligned.
#pragma once

#include "args/lora_gradient.h"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"
#include "swizzle.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_mma {

using Args = LoraGradientArgs;

template <class C>
struct Layout {
    static constexpr int threads = C::WARPS * 32;
    static constexpr int warp_c = C::TILE_C / C::WARPS;
    static constexpr int c_tiles = warp_c / 16;
    static constexpr int r_tiles = C::TILE_R / 8;
    static constexpr int c_chunks = C::TILE_C / 8;
    static constexpr int r_chunks = C::TILE_R / 8;
    static constexpr int wide_bytes = C::TILE_K * C::TILE_C * 2;
    static constexpr int rank_bytes = C::TILE_K * C::TILE_R * 2;
    static constexpr int stage_bytes = wide_bytes + rank_bytes;
    static constexpr int output_pitch = C::TILE_C + 4;  // floats; keeps the staging's columns off one bank
    static constexpr int output_bytes = C::TILE_R * output_pitch * 4;
    static constexpr int pipeline_bytes =
        C::STAGES * stage_bytes > output_bytes ? C::STAGES* stage_bytes : output_bytes;
    static constexpr int column_tiles = ceil_div(C::WIDE, C::TILE_C);
    static constexpr int rank_tiles = ceil_div(C::RANK, C::TILE_R);
    static constexpr int wide_rows_a_pass = threads / c_chunks;
    static constexpr int wide_passes = C::TILE_K / wide_rows_a_pass;

    static_assert(warp_c % 16 == 0 && C::TILE_R % 16 == 0 && C::TILE_K % 16 == 0, "mma pieces");
    static_assert(threads % c_chunks == 0 && C::TILE_K % wide_rows_a_pass == 0, "whole passes over the wide tile");
};

/// Copies one stage's piece of rank_rows, each row times its gate; plain loads and stores, as the gate comes between.
template <class C>
__device__ __forceinline__ void copy_rank_rows(unsigned char* target, const Args& args, int first_row, int end,
                                               int first_rank) {
    using L = Layout<C>;
    using Element = typename C::Element;
    const auto* const rank_rows = static_cast<const Element*>(args.rank_rows);
    for (int item = static_cast<int>(threadIdx.x); item < C::TILE_K * L::r_chunks; item += L::threads) {
        const int row = item / L::r_chunks;
        const int chunk = item % L::r_chunks;
        const int rank = first_rank + chunk * 8;
        const int position = first_row + row;
        const bool inside = position < end && rank < C::RANK_STRIDE;
        const Element* const from =
            inside ? rank_rows + static_cast<int64>(position) * C::RANK_STRIDE + rank : rank_rows;
        unsigned char* const to = target + swizzled<L::r_chunks>(row, chunk);
        if constexpr (C::HAS_GATES == 0) {
            ptx::cp_async_16(ptx::shared_address(to), from, inside ? 16U : 0U);
        } else {
            Vec16 value = {};
            if (inside) {
                value = *reinterpret_cast<const Vec16*>(from);
                const auto flat = static_cast<const typename C::Index*>(args.scattered_idxs)[position];
                const float gate = to_float(static_cast<const typename C::Gate*>(args.gates)[flat]);
                const auto* const element = reinterpret_cast<const Element*>(&value);
                Vec16 gated;
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    gated.word[i] =
                        pack2<Element>(to_float(element[i * 2]) * gate, to_float(element[i * 2 + 1]) * gate);
                }
                value = gated;
            }
            *reinterpret_cast<Vec16*>(to) = value;
        }
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using L = Layout<C>;
    using Element = typename C::Element;
    using Output = typename C::Output;
    using Index = typename C::Index;
    extern __shared__ __align__(128) unsigned char shared[];
    int* const prefix = reinterpret_cast<int*>(shared + L::pipeline_bytes);
    int* const split_prefix = prefix + C::E + 1;
    int* const warp_totals = split_prefix + C::E + 1;

    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread & 31;
    const int warp = thread >> 5;
    const auto* const offsets = static_cast<const Index*>(args.expert_offsets);
    const auto* const scattered = static_cast<const Index*>(args.scattered_idxs);
    const auto* const wide = static_cast<const Element*>(args.wide);

    auto chunks_of = [&](int expert) {
        const int rows = static_cast<int>(offsets[expert]) - first_row(offsets, expert);
        return rows > args.chunk_rows ? ceil_div(rows, args.chunk_rows) : 1;
    };
    prefix_counts<C::E, L::threads>(prefix, warp_totals, chunks_of);
    prefix_counts<C::E, L::threads>(split_prefix, warp_totals, [&](int expert) {
        const int chunks = chunks_of(expert);
        return chunks > 1 ? chunks : 0;
    });
    constexpr int tiles = L::column_tiles * L::rank_tiles;
    const int items = prefix[C::E] * tiles;

    for (int item = static_cast<int>(blockIdx.x); item < items; item += static_cast<int>(gridDim.x)) {
        const int chunk_item = item / tiles;
        const int expert = group_of<C::E>(prefix, chunk_item);
        const int chunk_index = chunk_item - prefix[expert];
        const bool split = prefix[expert + 1] - prefix[expert] > 1;
        const int column = item % tiles % L::column_tiles * C::TILE_C;
        const int first_rank = item % tiles / L::column_tiles * C::TILE_R;
        const int begin = first_row(offsets, expert) + chunk_index * args.chunk_rows;
        const int expert_end = static_cast<int>(offsets[expert]);
        const int end = split && begin + args.chunk_rows < expert_end ? begin + args.chunk_rows : expert_end;
        const int steps = ceil_div(end - begin, C::TILE_K);

        float sums[L::c_tiles][L::r_tiles][4] = {};
        const int wide_chunk = thread % L::c_chunks;
        const bool column_inside = C::WIDE % C::TILE_C == 0 || column + wide_chunk * 8 < C::WIDE;

        auto copy_step = [&](int step) {
            unsigned char* const stage = shared + step % C::STAGES * L::stage_bytes;
            const int first = begin + step * C::TILE_K;
#pragma unroll
            for (int pass = 0; pass < L::wide_passes; ++pass) {
                const int row = thread / L::c_chunks + pass * L::wide_rows_a_pass;
                const int position = first + row;
                const bool inside = position < end && column_inside;
                const Element* from = wide;
                if (inside) {
                    int source = position;
                    if constexpr (C::ROWS != rows_grouped) {
                        source = row_of<C::ROWS, C::TOP_K>(position, static_cast<int>(scattered[position]));
                    }
                    from = wide + static_cast<int64>(source) * args.wide_stride + column + wide_chunk * 8;
                }
                ptx::cp_async_16(ptx::shared_address(stage) + swizzled<L::c_chunks>(row, wide_chunk), from,
                                 inside ? 16U : 0U);
            }
            copy_rank_rows<C>(stage + L::wide_bytes, args, first, end, first_rank);
        };

        // The previous item's output staging is read until here.
        __syncthreads();
#pragma unroll
        for (int step = 0; step < C::STAGES - 1; ++step) {
            if (step < steps) copy_step(step);
            ptx::cp_async_commit();
        }
        for (int step = 0; step < steps; ++step) {
            ptx::cp_async_wait<C::STAGES - 2>();
            __syncthreads();
            if (step + C::STAGES - 1 < steps) copy_step(step + C::STAGES - 1);
            ptx::cp_async_commit();

            const unsigned stage =
                ptx::shared_address(shared) + static_cast<unsigned>(step % C::STAGES * L::stage_bytes);
            // Both operands lie with the reduction as rows: ldmatrix transposes them on the way.
#pragma unroll
            for (int k16 = 0; k16 < C::TILE_K / 16; ++k16) {
                unsigned b[L::r_tiles / 2][4];
#pragma unroll
                for (int r = 0; r < L::r_tiles / 2; ++r) {
                    const int row = k16 * 16 + (lane & 15);
                    ptx::ldmatrix_x4_trans(b[r],
                                           stage + L::wide_bytes + swizzled<L::r_chunks>(row, r * 2 + (lane >> 4)));
                }
#pragma unroll
                for (int c = 0; c < L::c_tiles; ++c) {
                    unsigned a[4];
                    const int row = k16 * 16 + (lane & 7) + ((lane >> 4) << 3);
                    const int chunk = (warp * L::warp_c + c * 16) / 8 + ((lane >> 3) & 1);
                    ptx::ldmatrix_x4_trans(a, stage + swizzled<L::c_chunks>(row, chunk));
#pragma unroll
                    for (int r = 0; r < L::r_tiles; ++r) {
                        ptx::mma_m16n8k16<Element>(sums[c][r], a, b[r / 2][(r & 1) * 2], b[r / 2][(r & 1) * 2 + 1]);
                    }
                }
            }
        }
        ptx::cp_async_wait<0>();
        __syncthreads();

        // Through shared memory as [rank][column], then along whichever direction is contiguous outside.
        auto* const staging = reinterpret_cast<float*>(shared);
#pragma unroll
        for (int c = 0; c < L::c_tiles; ++c) {
#pragma unroll
            for (int r = 0; r < L::r_tiles; ++r) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int own_column = warp * L::warp_c + c * 16 + (lane >> 2) + (i >> 1) * 8;
                    const int own_rank = r * 8 + (lane & 3) * 2 + (i & 1);
                    staging[own_rank * L::output_pitch + own_column] = sums[c][r][i];
                }
            }
        }
        __syncthreads();
        const bool along_columns = split || args.out_wide_stride == 1;
        for (int i = thread; i < C::TILE_C * C::TILE_R; i += L::threads) {
            const int c = along_columns ? i % C::TILE_C : i / C::TILE_R;
            const int r = along_columns ? i / C::TILE_C : i % C::TILE_R;
            if (column + c >= C::WIDE || first_rank + r >= C::RANK) continue;
            const float value = staging[r * L::output_pitch + c];
            if (split) {
                const int64 slot = split_prefix[expert] + chunk_index;
                static_cast<float*>(args.partials)[(slot * C::RANK + first_rank + r) * C::WIDE + column + c] = value;
            } else {
                static_cast<Output*>(args.out)[expert * args.out_expert_stride + (column + c) * args.out_wide_stride +
                                               (first_rank + r) * args.out_rank_stride] = from_float<Output>(value);
            }
        }
    }
}

}  // namespace smlora::lora_gradient_mma
