// Shared memory by address: two words at once, half a word, and a byte.
#pragma once

#include "ptx/shared.cuh"

namespace smlora::ptx {

__device__ SMLORA_EMULATED unsigned load_shared_8(unsigned address, SMLORA_WHERE) {
    return *static_cast<const unsigned char*>(emulator::runtime->shared_pointer(address, where));
}

__device__ SMLORA_EMULATED unsigned load_shared_16(unsigned address, SMLORA_WHERE) {
    return *static_cast<const unsigned short*>(emulator::runtime->shared_pointer(address, where));
}

__device__ SMLORA_EMULATED void store_shared(unsigned address, const unsigned (&values)[2], SMLORA_WHERE) {
    for (unsigned i = 0; i < 2; ++i) emulator::runtime->store_shared(address + i * 4, values[i], where);
}

__device__ SMLORA_EMULATED void load_shared(unsigned (&values)[2], unsigned address, SMLORA_WHERE) {
    for (unsigned i = 0; i < 2; ++i) values[i] = load_shared(address + i * 4, where);
}

}  // namespace smlora::ptx
