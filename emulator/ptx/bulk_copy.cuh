// Bulk copies of contiguous bytes from global to shared memory.
#pragma once

#include "ptx/l2_policy.cuh"

namespace smlora::ptx {

__device__ SMLORA_EMULATED void bulk_copy(unsigned target, const void* source, unsigned bytes, unsigned barrier,
                                          unsigned long long policy, SMLORA_WHERE) {
    emulator::check_policy(policy, where);
    emulator::runtime->bulk_copy(target, source, bytes, barrier, where);
}

}  // namespace smlora::ptx
