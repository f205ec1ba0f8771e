// How long what a copy reads stays in L2 (sm_80).
#pragma once

namespace smlora::ptx {

/// For copies of what is read once and leaves L2 before anything else, or stays like anything else.
__device__ __forceinline__ unsigned long long l2_policy(bool read_once) {
    unsigned long long once, normal;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(once));
    asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(normal));
    return read_once ? once : normal;
}

}  // namespace smlora::ptx
