// Loads of 8x8 matrices of 16-bit elements from shared memory into mma fragments.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED void ldmatrix_x4(unsigned (&registers)[4], unsigned address, SMLORA_WHERE) {
    emulator::runtime->ldmatrix(registers, 4, false, address, where);
}

__device__ SMLORA_EMULATED void ldmatrix_x4_trans(unsigned (&registers)[4], unsigned address, SMLORA_WHERE) {
    emulator::runtime->ldmatrix(registers, 4, true, address, where);
}

}  // namespace smlora::ptx
