// Puts the scales of a packed weight into the order in which products take them, and looks whether products have room
// for them. Done once for a weight.
//
// Roles: a thread takes the scales of a row in a block of `out`; neighbours write neighbours. The first of a block
// makes its split. Each counts what it has found.
//
// Compile-time (struct C): ENCODING, BLOCK, ROWS, COLUMNS (a multiple of BLOCK), PARTS, DOUBLE, OUTER_BLOCK,
// GLOBAL_DIVIDES, as unpack_weights.cuh; ARRANGED 0; CODE_BYTES (fp8, mxfp8: of codes that are read at once, 4 where
// they and COLUMNS are aligned to that, or 1); types Scale, as there, and Arranged, of `out`.
#pragma once

#include "args/arrange_scales.h"
#include "args/split_factor.h"
#include "float8.cuh"
#include "types.cuh"
#include "unpack_weights.cuh"

namespace smlora::arrange_scales {

using Args = ArrangeScalesKernelArgs;

template <class C>
inline constexpr weight::ScaleOrder order_of = weight::scale_order(C::ENCODING, C::BLOCK);

template <class C>
inline constexpr bool has_bytes = order_of<C>.bytes == 1;

/// The scale of a row and column as `out` has it: the same bits where the type is the same.
template <class C>
__device__ __forceinline__ typename C::Arranged scale_at(const Args& args, int expert, int row, int column) {
    using Scale = typename C::Scale;
    using Arranged = typename C::Arranged;
    if constexpr (C::ENCODING == unpack_weights::fp8 || C::ENCODING == unpack_weights::nf4 ||
                  C::ENCODING == unpack_weights::fp4) {
        return unpack_weights::scale_of<C>(args.weight, expert, row, column);
    } else {
        const Scale scale = static_cast<const Scale*>(
            args.weight
                .scales)[(static_cast<int64>(expert) * C::ROWS + row) * (C::COLUMNS / C::BLOCK) + column / C::BLOCK];
        if constexpr (is_same<Scale, Arranged>::value) {
            return scale;
        } else {
            return from_float<Arranged>(to_float(scale));
        }
    }
}

/// The split of the block that begins there, as products read it.
template <class C>
__device__ __forceinline__ uint32 split_at(const Args& args, int expert, int row, int column, ArrangeFindings& found) {
    weight::Split split{};
    double power = 0;
    if constexpr (C::ENCODING == unpack_weights::fp8) {
        split = weight::split_of_e4m3_scale(scale_at<C>(args, expert, row, column));
        power = weight::e4m3_power;
    } else {
        const float outer = args.weight.outer_scales[expert * args.weight.outer_expert_stride +
                                                     row / (C::ROWS / C::PARTS) * args.weight.outer_part_stride];
        split = weight::split_of_outer_scale(outer, C::GLOBAL_DIVIDES != 0);
        power = weight::nvfp4_power;
    }
    if (!split.found) {
        ++found.without_split;
        return 0;
    }
    return split.word(power);
}

template <class C>
__device__ __forceinline__ void look_at_codes(const Args& args, ArrangeFindings& found) {
    const int64 codes = static_cast<int64>(args.E) * C::ROWS * C::COLUMNS;
    const auto* const bytes = static_cast<const unsigned char*>(args.weight.codes);
    for (int64 i = (static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x) * C::CODE_BYTES; i < codes;
         i += static_cast<int64>(gridDim.x) * blockDim.x * C::CODE_BYTES) {
        const uint32 word = C::CODE_BYTES == 4 ? *reinterpret_cast<const uint32*>(bytes + i) : bytes[i];
        // A byte of 0x7f carries into its eighth bit, and no other does.
        found.nan_codes += (((word & 0x7F7F7F7FU) + 0x01010101U) & 0x80808080U) != 0;
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Arranged = typename C::Arranged;
    constexpr weight::ScaleOrder order = order_of<C>;
    constexpr int block_columns = weight::scale_blocks(C::COLUMNS);
    constexpr int64 lines = static_cast<int64>(weight::scale_blocks(C::ROWS)) * block_columns * order.lines();
    auto* const out = static_cast<Arranged*>(args.out);
    const int64 items = args.E * lines;
    ArrangeFindings found{};
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < items;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int expert = static_cast<int>(item / lines);
        const int in_matrix = static_cast<int>(item % lines);
        const int block = in_matrix / order.lines();
        const int row_of_block = in_matrix % order.lines() * order.rows_of_scale;
        const int first_row = block / block_columns * weight::scale_block;
        const int first_column = block % block_columns * weight::scale_block;
        const int row = first_row + row_of_block;
        Arranged* const to = out + item / order.lines() * order.count();
#pragma unroll
        for (int i = 0; i < order.in_row; ++i) {
            const int column = first_column + i * order.columns_of_scale();
            Arranged scale{};
            if (row < C::ROWS && column < C::COLUMNS) {
                scale = scale_at<C>(args, expert, row, column);
                if constexpr (has_bytes<C>) found.largest = scale.bits > found.largest ? scale.bits : found.largest;
                if constexpr (C::ENCODING == unpack_weights::nvfp4) {
                    found.nan_scales += (scale.bits & 0x7FFFU) > 0x7F80U;
                }
            }
            to[order.in_block(row_of_block, i)] = scale;
        }
        if constexpr (order.has_split) {
            if (row_of_block == 0) {
                auto* const words = reinterpret_cast<uint32*>(reinterpret_cast<unsigned char*>(to) + order.split_at());
                const bool inside = first_row < C::ROWS && first_column < C::COLUMNS;
                words[0] = inside ? split_at<C>(args, expert, first_row, first_column, found) : 0;
#pragma unroll
                for (int i = 1; i < (order.block_bytes() - order.split_at()) / 4; ++i) words[i] = 0;
            }
        }
    }
    if constexpr (C::ENCODING == unpack_weights::fp8 || C::ENCODING == unpack_weights::mxfp8) {
        look_at_codes<C>(args, found);
    }
    if (found.largest > 0) atomicMax(&args.findings->largest, found.largest);
    if (found.without_split > 0) atomicAdd(&args.findings->without_split, found.without_split);
    if (found.nan_scales > 0) atomicAdd(&args.findings->nan_scales, found.nan_scales);
    if (found.nan_codes > 0) atomicAdd(&args.findings->nan_codes, found.nan_codes);
}

}  // namespace smlora::arrange_scales
