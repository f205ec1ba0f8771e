// Gradients of the adapter without tensor cores: any element type, any alignment. The path of fp32, and of 16-bit
// problems whose rows are not 16-byte aligned. A launch makes one gradient, and one block sums all rows of an expert.
//
// Grid: (column tiles x rank tiles, E) blocks of 256 threads; a block owns 64 columns x 16 ranks of one expert.
// Roles: all threads load 16 rows of both operands as floats, then each multiplies 1 column x 4 ranks with FFMA.
// Shared memory (static): wide 16 x 64 x 4, ranks 16 x 16 x 4.
//
// Compile-time (struct C): E, WIDE, RANK, RANK_STRIDE, ROWS, TOP_K, HAS_GATES; types Element, Output, Gate, Index.
#pragma once

#include "args/lora_gradient.h"
#include "args/lora_gradient_simt.h"
#include "groups.cuh"
#include "rows.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_simt {

using Args = LoraGradientArgs;

constexpr int depth = 16;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    using Output = typename C::Output;
    using Index = typename C::Index;
    __shared__ float wide_tile[depth][tile_c];
    __shared__ float rank_tile[depth][tile_r];

    const int thread = static_cast<int>(threadIdx.x);
    const int group = static_cast<int>(blockIdx.y);
    constexpr int column_tiles = ceil_div(C::WIDE, tile_c);
    const int column = static_cast<int>(blockIdx.x) % column_tiles * tile_c;
    const int first_rank = static_cast<int>(blockIdx.x) / column_tiles * tile_r;
    const Groups<C, false> groups{static_cast<const Index*>(args.expert_offsets), args.M};
    const auto* const scattered = static_cast<const Index*>(args.scattered_idxs);
    using Wide = Rows<const Element, C::ROWS, C::TOP_K>;
    const Wide wide{static_cast<const Element*>(args.wide), args.wide_stride};
    const auto* const rank_rows = static_cast<const Element*>(args.rank_rows);
    const int end = groups.end_row(group);

    float sums[4] = {};
    const int own_column = thread % tile_c;
    const int own_rank = thread / tile_c * 4;
    for (int first = groups.first_row(group); first < end; first += depth) {
#pragma unroll
        for (int i = 0; i < depth * tile_c / block_threads; ++i) {
            const int row = (thread + i * block_threads) / tile_c;
            const int c = (thread + i * block_threads) % tile_c;
            float value = 0.0F;
            if (first + row < end && column + c < C::WIDE) {
                const int flat = static_cast<int>(scattered[first + row]);
                value = Wide::value(wide.address(Wide::index(first + row, flat))[column + c], flat, column + c);
            }
            wide_tile[row][c] = value;
        }
        const int row = thread / tile_r;
        const int r = thread % tile_r;
        float value = 0.0F;
        if (first + row < end && first_rank + r < C::RANK) {
            value = to_float(rank_rows[static_cast<int64>(first + row) * C::RANK_STRIDE + first_rank + r]);
            if constexpr (C::HAS_GATES != 0) {
                value *= to_float(static_cast<const typename C::Gate*>(args.gates)[scattered[first + row]]);
            }
        }
        rank_tile[row][r] = value;
        __syncthreads();
#pragma unroll
        for (int k = 0; k < depth; ++k) {
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[i] += wide_tile[k][own_column] * rank_tile[k][own_rank + i];
        }
        __syncthreads();
    }
    if (column + own_column >= C::WIDE) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (first_rank + own_rank + i >= C::RANK) continue;
        static_cast<Output*>(
            args.out)[groups.adapter_of(group) * args.out_expert_stride + (column + own_column) * args.out_wide_stride +
                      (first_rank + own_rank + i) * args.out_rank_stride] = from_float<Output>(sums[i]);
    }
}

}  // namespace smlora::lora_gradient_simt
