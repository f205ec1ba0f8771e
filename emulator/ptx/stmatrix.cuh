// Stores of 8x8 matrices of 16-bit elements from mma fragments to shared memory.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED void stmatrix_x4_trans(unsigned address, unsigned a, unsigned b, unsigned c, unsigned d,
                                                  SMLORA_WHERE) {
    const unsigned registers[4] = {a, b, c, d};
    emulator::runtime->stmatrix(address, registers, 4, true, where);
}

}  // namespace smlora::ptx
