// Bulk copies of contiguous bytes from global to shared memory (sm_90).
#pragma once

namespace smlora::ptx {

/// For copies of what is read once and leaves L2 before anything else, or stays like anything else.
__device__ __forceinline__ unsigned long long l2_policy(bool read_once) {
    unsigned long long once, normal;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(once));
    asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(normal));
    return read_once ? once : normal;
}

/// Copies `bytes`, a multiple of 16, between 16-byte-aligned addresses; they count at `barrier`.
__device__ __forceinline__ void bulk_copy(unsigned target, const void* source, unsigned bytes, unsigned barrier,
                                          unsigned long long policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
            "r"(target),
        "l"(source), "r"(bytes), "r"(barrier), "l"(policy)
        : "memory");
}

}  // namespace smlora::ptx
