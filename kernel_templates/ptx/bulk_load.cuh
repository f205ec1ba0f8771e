// Bulk copies from global to shared memory of what stays in L2 like anything else (sm_90).
#pragma once

namespace smlora::ptx {

/// Copies `bytes`, a multiple of 16, between 16-byte-aligned addresses; they count at `barrier`.
__device__ __forceinline__ void bulk_load(unsigned target, const void* source, unsigned bytes, unsigned barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(target),
        "l"(source), "r"(bytes), "r"(barrier)
        : "memory");
}

/// Counts `bytes` at a barrier that nothing copies.
__device__ __forceinline__ void complete_bytes(unsigned barrier, unsigned bytes) {
    asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

}  // namespace smlora::ptx
