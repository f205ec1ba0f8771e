// Shared memory by address.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED void store_shared(unsigned address, unsigned value, SMLORA_WHERE) {
    emulator::runtime->store_shared(address, value, where);
}

__device__ SMLORA_EMULATED void store_shared_remote(unsigned address, unsigned value, unsigned barrier, unsigned rank,
                                                    SMLORA_WHERE) {
    emulator::runtime->store_shared(emulator::runtime->map_shared_rank(address, rank, where), value, where);
    emulator::runtime->complete_bytes(emulator::runtime->map_shared_rank(barrier, rank, where), sizeof value, where);
}

__device__ SMLORA_EMULATED unsigned load_shared(unsigned address, SMLORA_WHERE) {
    return *static_cast<const unsigned*>(emulator::runtime->shared_pointer(address, where));
}

__device__ SMLORA_EMULATED void store_shared(unsigned address, const unsigned (&values)[4], SMLORA_WHERE) {
    for (unsigned i = 0; i < 4; ++i) emulator::runtime->store_shared(address + i * 4, values[i], where);
}

__device__ SMLORA_EMULATED void load_shared(unsigned (&values)[4], unsigned address, SMLORA_WHERE) {
    for (unsigned i = 0; i < 4; ++i) values[i] = load_shared(address + i * 4, where);
}

}  // namespace smlora::ptx
