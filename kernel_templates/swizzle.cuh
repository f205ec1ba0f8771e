// Where a 16-byte chunk of a row-major shared-memory tile lies.
#pragma once

#include "types.cuh"

namespace smlora {

/// Byte offset of chunk `chunk` of row `row` in a tile with CHUNKS (a power of two) 16-byte chunks a row. The chunk is
/// xor-ed with the row so that the eight rows that one ldmatrix phase reads at one chunk lie in all 32 banks.
template <int CHUNKS>
__device__ __forceinline__ unsigned swizzled(int row, int chunk) {
    static_assert((CHUNKS & (CHUNKS - 1)) == 0, "a power of two of chunks a row");
    constexpr int span = CHUNKS >= 8 ? 1 : 8 / CHUNKS;  // rows that share 128 bytes
    constexpr int mask = CHUNKS >= 8 ? 7 : CHUNKS - 1;
    return static_cast<unsigned>(row * CHUNKS + (chunk ^ ((row / span) & mask))) * 16U;
}

}  // namespace smlora
