// Grouped product without tensor cores: any element type, any alignment, any K, N and R. The path of fp32, and of
// 16-bit problems whose rows are not 16-byte aligned. Same arguments and same walk over the tiles as
// grouped_product_mma.
//
// Roles: all 256 threads load a 64 x 16 piece of each operand as floats, then each multiplies a 4 x 4 part with FFMA.
//
// Shared memory (static): row_from 64 x 4, row_flat 64 x 4, rows 16 x 65 x 4, weights 16 x 65 x 4; dynamic:
// args/grouped_product_simt.h.
//
// Compile-time (struct C): E, RED, OUT, RANK (columns of lora_rows that count), RANK_STRIDE, TOP_K, ROWS, OUT_ROWS,
// OUT_WEIGHT, WEIGHT_MAJOR, LORA_MAJOR, HAS_BIAS, HAS_GATES, SLICE; types Element, Weight (weight/plain.cuh), Gate,
// Index. OUT is what is written: for a rank-sized product the padded rank, of which OUT_WEIGHT columns have weights and
// the rest are zero.
#pragma once

#include "args/grouped_product.h"
#include "args/grouped_product_simt.h"
#include "epilogue.cuh"
#include "product_groups.cuh"
#include "rows.cuh"
#include "tile_list.cuh"
#include "types.cuh"
#include "weight/simt.cuh"

namespace smlora::grouped_product_simt {

using Args = GroupedProductArgs;

constexpr int depth = 16;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    using Index = typename C::Index;
    using Left = Rows<const Element, C::ROWS, C::TOP_K>;
    using Out = Rows<Element, C::OUT_ROWS, C::TOP_K>;
    extern __shared__ __align__(16) unsigned char shared[];
    constexpr SharedMemory memory = shared_memory(C::E);
    int* const prefix = reinterpret_cast<int*>(shared + memory.prefix);
    int* const warp_totals = reinterpret_cast<int*>(shared + memory.warp_totals);
    __shared__ int row_from[tile];
    __shared__ int row_flat[tile];
    __shared__ float left[depth][tile + 1];
    __shared__ float right[depth][tile + 1];

    const int thread = static_cast<int>(threadIdx.x);
    const int thread_m = thread / 16;
    const int thread_n = thread % 16;
    const ProductGroups<C> groups{static_cast<const Index*>(args.expert_offsets), args.M};
    const auto* const scattered = static_cast<const Index*>(args.scattered_idxs);

    prefix_counts<groups.count, block_threads>(prefix, warp_totals,
                                               [&](int group) { return ceil_div(groups.rows(group), tile); });
    constexpr int column_tiles = ceil_div(C::OUT, tile);
    const int64 tiles = static_cast<int64>(prefix[groups.count]) * column_tiles;

    for (int64 item = blockIdx.x; item < tiles; item += gridDim.x) {
        const int group = group_of<groups.count>(prefix, static_cast<int>(item / column_tiles));
        const int row_tiles = prefix[group + 1] - prefix[group];
        const int local = static_cast<int>(item - static_cast<int64>(prefix[group]) * column_tiles);
        const int column = local / row_tiles * tile;
        const int first = groups.first_row(group) + local % row_tiles * tile;
        const int end = groups.end_row(group);

        __syncthreads();
        if (thread < tile) {
            const int position = first + thread < end ? first + thread : first;
            const int flat = static_cast<int>(scattered[position]);
            row_flat[thread] = flat;
            row_from[thread] = Left::index(position, flat);
        }
        __syncthreads();

        float sums[4][4] = {};
        // One pass over a reduction of `length`: left(row, k) and right(k, column) give the operands' elements.
        auto accumulate = [&](int length, int columns, bool out_contiguous, auto left_at, auto right_at) {
            for (int base = 0; base < length; base += depth) {
#pragma unroll
                for (int i = 0; i < tile * depth / block_threads; ++i) {
                    const int element = thread + i * block_threads;
                    const int k = element % depth;
                    const int row = element / depth;
                    left[k][row] = base + k < length && first + row < end ? left_at(row, base + k) : 0.0F;
                    // Along whichever direction is contiguous in memory.
                    const int right_k = out_contiguous ? element / tile : element % depth;
                    const int right_n = out_contiguous ? element % tile : element / depth;
                    right[right_k][right_n] = base + right_k < length && column + right_n < columns
                                                  ? right_at(base + right_k, column + right_n)
                                                  : 0.0F;
                }
                __syncthreads();
#pragma unroll
                for (int k = 0; k < depth; ++k) {
#pragma unroll
                    for (int m = 0; m < 4; ++m) {
#pragma unroll
                        for (int n = 0; n < 4; ++n) {
                            sums[m][n] += left[k][thread_m * 4 + m] * right[k][thread_n + n * 16];
                        }
                    }
                }
                __syncthreads();
            }
        };
        if (group < groups.routed) {
            const Left rows{static_cast<const Element*>(args.rows), args.rows_stride};
            const weight::Simt<typename C::Weight, Element, C::WEIGHT_MAJOR> weights{
                static_cast<const Element*>(args.weight) + groups.weight_of(group) * args.weight_expert_stride,
                args.weight_row_stride};
            accumulate(
                C::RED, C::OUT_WEIGHT, C::WEIGHT_MAJOR == 1,
                [&](int row, int k) {
                    return Left::value(rows.data[rows.offset(row_from[row]) + k], row_flat[row], k);
                },
                [&](int k, int n) { return weights.at(k, n); });
            if constexpr (C::RANK > 0) {
                const auto* const lora_rows = static_cast<const Element*>(args.lora_rows);
                const weight::Simt<weight::Plain, Element, C::LORA_MAJOR> adapter{
                    static_cast<const Element*>(args.lora_weight) + groups.adapter_of(group) * args.lora_expert_stride,
                    args.lora_row_stride};
                accumulate(
                    C::RANK, C::OUT, C::LORA_MAJOR == 1,
                    [&](int row, int k) {
                        return to_float(lora_rows[static_cast<int64>(first + row) * C::RANK_STRIDE + k]);
                    },
                    [&](int k, int n) { return adapter.at(k, n); });
            }
        }

        const Out out{static_cast<Element*>(args.out), args.out_stride};
        using Finish = Epilogue<C, true>;
        const Finish finish{args};
#pragma unroll
        for (int m = 0; m < 4; ++m) {
            const int row = thread_m * 4 + m;
            if (first + row >= end) continue;
            Element* const to = out.address(Out::index(first + row, row_flat[row]));
            auto of_row = finish.row(groups.scale_of(group, args.scale));
            if (group < groups.routed) finish.read_row(of_row, row_flat[row]);
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                const int to_column = column + thread_n + n * 16;
                if (to_column >= C::OUT) continue;
                typename Finish::Column of_column[1];
                if (group < groups.routed) finish.read_columns(of_column, groups.weight_of(group), to_column);
                to[to_column] = from_float<Element>(Finish::apply(sums[m][n], of_row, of_column[0]));
            }
        }
    }
}

}  // namespace smlora::grouped_product_simt
