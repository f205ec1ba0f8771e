// Stores of 8x8 matrices of 16-bit elements from mma fragments to shared memory (sm_90).
#pragma once

namespace smlora::ptx {

/// Lane l gives the address of row l % 8 of matrix l / 8; matrix i comes from register i, transposed: lane l holds
/// column l / 4, rows l % 4 * 2 and the next.
__device__ __forceinline__ void stmatrix_x4_trans(unsigned address, unsigned a, unsigned b, unsigned c, unsigned d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a),
                 "r"(b), "r"(c), "r"(d)
                 : "memory");
}

}  // namespace smlora::ptx
