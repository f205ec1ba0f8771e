// Shared memory by address.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED void store_shared(unsigned address, unsigned value, SMLORA_WHERE) {
    emulator::runtime->store_shared(address, value, where);
}

__device__ SMLORA_EMULATED unsigned load_shared(unsigned address, SMLORA_WHERE) {
    return *static_cast<const unsigned*>(emulator::runtime->shared_pointer(address, where));
}

}  // namespace smlora::ptx
