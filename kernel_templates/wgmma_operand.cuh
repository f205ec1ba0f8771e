// Where an operand of wgmma lies in shared memory.
#pragma once

#include "types.cuh"

namespace smlora {

/// How an operand lies in shared memory, in an instruction's bits: rows of `pitch` bytes (32, 64 or 128) whose 16-byte
/// chunks are xor-ed with the row as TMA does for that pitch. `address` is a multiple of 8 pitches.
///   Reduction contiguous: a row is an m (or n) index; `rows_step` = 8 pitches from one eight rows to the next.
///   Reduction strided: a row is a k index and holds pitch / 2 m (or n) indices; `rows_step` from one eight k to the
///   next, `columns_step` from one pitch / 2 indices to the next.
__device__ __forceinline__ uint64 wgmma_operand(unsigned address, int pitch, unsigned rows_step,
                                                unsigned columns_step) {
    const uint64 swizzle = pitch == 128 ? 1 : pitch == 64 ? 2 : 3;
    return static_cast<uint64>((address & 0x3FFFFU) >> 4) | static_cast<uint64>(columns_step >> 4) << 16 |
           static_cast<uint64>(rows_step >> 4) << 32 | swizzle << 62;
}

}  // namespace smlora
