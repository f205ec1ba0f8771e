// Loads of 8x8 matrices of 16-bit elements from shared memory into mma fragments (sm_75).
#pragma once

namespace smlora::ptx {

/// Lane l gives the address of row l % 8 of matrix l / 8; matrix i comes in register i.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&registers)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
}

/// The same with each matrix transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&registers)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
}

}  // namespace smlora::ptx
