// Puts the scales of a packed weight into the order in which products take them. Done once for a weight.
//
// Roles: a thread takes the two scales of a row in a block, two bytes of `out`; neighbours write neighbours. Each
// tells the largest scale that it has seen.
//
// Compile-time (struct C): ROWS, COLUMNS (a multiple of 32).
#pragma once

#include "args/arrange_scales.h"
#include "types.cuh"

namespace smlora::arrange_scales {

using Args = ArrangeScalesKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    constexpr int blocks = C::COLUMNS / 32;  // of 32 columns
    constexpr int block_columns = weight::scale_blocks(C::COLUMNS);
    constexpr int64 matrix = static_cast<int64>(weight::scale_blocks(C::ROWS)) * block_columns * weight::scale_block;
    const auto* const scales = static_cast<const unsigned char*>(args.scales);
    auto* const out = static_cast<uint16*>(args.out);
    const int64 items = args.E * matrix;
    unsigned largest = 0;
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < items;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int64 expert = item / matrix;
        const int in_matrix = static_cast<int>(item % matrix);
        const int block = in_matrix / weight::scale_block;
        const int row = block / block_columns * weight::scale_block + in_matrix % weight::scale_block;
        const int first = block % block_columns * 2;
        unsigned pair = 0;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            if (row >= C::ROWS || first + h >= blocks) continue;
            const unsigned scale = scales[(expert * C::ROWS + row) * blocks + first + h];
            largest = scale > largest ? scale : largest;
            pair |= scale << (8 * h);
        }
        out[item] = static_cast<uint16>(pair);
    }
    atomicMax(args.largest, largest);
}

}  // namespace smlora::arrange_scales
