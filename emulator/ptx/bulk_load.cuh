// Bulk copies from global to shared memory of what stays in L2 like anything else.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED void bulk_load(unsigned target, const void* source, unsigned bytes, unsigned barrier,
                                          SMLORA_WHERE) {
    emulator::runtime->bulk_copy(target, source, bytes, barrier, where);
}

__device__ SMLORA_EMULATED void complete_bytes(unsigned barrier, unsigned bytes, SMLORA_WHERE) {
    emulator::runtime->complete_bytes(barrier, bytes, where);
}

}  // namespace smlora::ptx
