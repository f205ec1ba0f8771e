// Puts the scales of a packed weight into the order in which products take them. Done once for a weight.
//
// Roles: a thread takes the scales of a row in a block of `out`; neighbours write neighbours. Each tells the largest
// byte of MXFP4's that it has seen.
//
// Compile-time (struct C): ENCODING, BLOCK, ROWS, COLUMNS (a multiple of BLOCK); type Scale (e8m0, byte or bf16).
#pragma once

#include "args/arrange_scales.h"
#include "float8.cuh"
#include "types.cuh"

namespace smlora::arrange_scales {

using Args = ArrangeScalesKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Scale = typename C::Scale;
    constexpr weight::ScaleOrder order = weight::scale_order(C::ENCODING, C::BLOCK);
    constexpr int blocks = C::COLUMNS / C::BLOCK;
    constexpr int block_columns = weight::scale_blocks(C::COLUMNS);
    constexpr int64 lines = static_cast<int64>(weight::scale_blocks(C::ROWS)) * block_columns * weight::scale_block;
    const auto* const scales = static_cast<const Scale*>(args.scales);
    auto* const out = static_cast<Scale*>(args.out);
    const int64 items = args.E * lines;
    unsigned largest = 0;
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < items;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int64 expert = item / lines;
        const int in_matrix = static_cast<int>(item % lines);
        const int block = in_matrix / weight::scale_block;
        const int row_of_block = in_matrix % weight::scale_block;
        const int row = block / block_columns * weight::scale_block + row_of_block;
        Scale* const to = out + item / weight::scale_block * order.count();
#pragma unroll
        for (int i = 0; i < order.in_row; ++i) {
            const int column = block % block_columns * weight::scale_block + i * order.columns_of_scale();
            Scale scale{};
            if (row < C::ROWS && column < C::COLUMNS) {
                scale = scales[(expert * C::ROWS + row) * blocks + column / C::BLOCK];
                if constexpr (order.bytes == 1) largest = scale.bits > largest ? scale.bits : largest;
            }
            to[order.in_block(row_of_block, i)] = scale;
        }
    }
    if constexpr (order.bytes == 1) atomicMax(args.largest, largest);
}

}  // namespace smlora::arrange_scales
