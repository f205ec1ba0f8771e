// Bulk copies of contiguous bytes from global to shared memory (sm_90).
#pragma once

namespace smlora::ptx {

/// Copies `bytes`, a multiple of 16, between 16-byte-aligned addresses; they count at `barrier`.
__device__ __forceinline__ void bulk_copy(unsigned target, const void* source, unsigned bytes, unsigned barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(target),
        "l"(source), "r"(bytes), "r"(barrier)
        : "memory");
}

}  // namespace smlora::ptx
