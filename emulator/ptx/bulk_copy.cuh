// Bulk copies of contiguous bytes from global to shared memory.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED unsigned long long l2_policy(bool read_once) { return read_once ? 1 : 0; }

__device__ SMLORA_EMULATED void bulk_copy(unsigned target, const void* source, unsigned bytes, unsigned barrier,
                                          unsigned long long policy, SMLORA_WHERE) {
    static_cast<void>(policy);
    emulator::runtime->bulk_copy(target, source, bytes, barrier, where);
}

}  // namespace smlora::ptx
