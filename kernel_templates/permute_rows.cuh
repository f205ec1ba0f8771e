// Permutes the columns of rows for products with packed weights: memory-bound, one read and one write of every row.
//
// Roles: a warp takes a segment of a row, 32 lanes x UNROLL units of 16 bytes. Four neighbouring lanes have 32 columns,
// or two have 16, and exchange what the order moves between them. No shared memory, no barriers.
//
// Compile-time (struct C): WIDTH (columns, a multiple of 32), CODE_BITS (4 or 8) of the codes in whose order they come;
// type Element, of 16 bits. Rows are 16-byte aligned.
#pragma once

#include "args/permute_rows.h"
#include "types.cuh"

namespace smlora::permute_rows {

using Args = PermuteRowsArgs;

/// Word q of lane i of four becomes word i of lane q. By whole warps.
__device__ __forceinline__ void transpose_words(uint32 (&words)[4], int lane) {
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
        const bool high = (lane & bit) != 0;
#pragma unroll
        for (int low = 0; low < 4; ++low) {
            if ((low & bit) != 0) continue;
            uint32& sent = high ? words[low] : words[low | bit];
            sent = __shfl_xor_sync(0xFFFFFFFFU, sent, bit);
        }
    }
}

/// Words 2 and 3 of the even lane of two become words 0 and 1 of the odd one, and the other way round.
__device__ __forceinline__ void exchange_halves(uint32 (&words)[4], int lane) {
    const bool odd = lane % 2 != 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        uint32& sent = odd ? words[i] : words[i + 2];
        sent = __shfl_xor_sync(0xFFFFFFFFU, sent, 1);
    }
}

/// Of two words, the lower halves and the upper ones.
__device__ __forceinline__ void take_pairs(uint32& lower, uint32& upper, uint32 first, uint32 second) {
    lower = (first & 0xFFFFU) | second << 16;
    upper = first >> 16 | (second & 0xFFFF0000U);
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    constexpr int units = C::WIDTH / 8;
    constexpr RowSegments shape = permute_segments(units);
    constexpr int unroll = shape.unroll;
    static_assert(sizeof(typename C::Element) == 2 && C::WIDTH % 32 == 0, "whole groups of 32 columns");
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int64 warps = static_cast<int64>(gridDim.x) * (blockDim.x / 32);
    const int64 items = static_cast<int64>(args.count) * shape.count;
    for (int64 item = static_cast<int64>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; item < items;
         item += warps) {
        const int64 row = item / shape.count;
        const int first = static_cast<int>(item % shape.count) * 32 * unroll + lane;
        const auto* const from =
            reinterpret_cast<const Vec16*>(static_cast<const typename C::Element*>(args.rows) + row * args.rows_stride);
        auto* const to = static_cast<Vec16*>(args.out) + row * units;
        Vec16 raw[unroll] = {};
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            if (first + 32 * u < units) raw[u] = from[first + 32 * u];
        }
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            const uint32(&word)[4] = raw[u].word;
            uint32 pairs[4];
            if constexpr (C::CODE_BITS == 4) {
                // Columns i and i + 4.
#pragma unroll
                for (int i = 0; i < 2; ++i) take_pairs(pairs[2 * i], pairs[2 * i + 1], word[i], word[i + 2]);
                transpose_words(pairs, lane);
            } else {
                // Columns i and i + 2 of each four; of two lanes, the first takes those of even i.
#pragma unroll
                for (int i = 0; i < 2; ++i) take_pairs(pairs[i], pairs[i + 2], word[2 * i], word[2 * i + 1]);
                exchange_halves(pairs, lane);
            }
            if (first + 32 * u < units) to[first + 32 * u] = Vec16{{pairs[0], pairs[1], pairs[2], pairs[3]}};
        }
    }
}

}  // namespace smlora::permute_rows
