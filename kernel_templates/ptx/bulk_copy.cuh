// Bulk copies of contiguous bytes from global to shared memory (sm_90).
#pragma once

namespace smlora::ptx {

/// Copies `bytes`, a multiple of 16, between 16-byte-aligned addresses; they count at `barrier`. `policy`: l2_policy().
__device__ __forceinline__ void bulk_copy(unsigned target, const void* source, unsigned bytes, unsigned barrier,
                                          unsigned long long policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
            "r"(target),
        "l"(source), "r"(bytes), "r"(barrier), "l"(policy)
        : "memory");
}

}  // namespace smlora::ptx
