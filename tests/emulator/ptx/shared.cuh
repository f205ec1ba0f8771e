// Shared memory by address.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED void store_shared(unsigned address, unsigned value, SMLORA_WHERE) {
    emulator::runtime->store_shared(address, value, where);
}

}  // namespace smlora::ptx
