// Bulk copies of boxes of a tensor from global to shared memory (sm_90).
#pragma once

#include "args/tensor_map.h"

namespace smlora::ptx {

/// Copies the box at (x, y, z) of a three-dimensional tensor, x fastest, to `target`; elements outside of the tensor
/// become zero. Its bytes, those outside included, count at `barrier`.
__device__ __forceinline__ void tma_load(unsigned target, const TensorMap& map, unsigned barrier, int x, int y, int z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
            "r"(target),
        "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z)
        : "memory");
}

/// The same for what stays in L2 as `policy` says: l2_policy().
__device__ __forceinline__ void tma_load(unsigned target, const TensorMap& map, unsigned barrier, int x, int y, int z,
                                         unsigned long long policy) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, "
        "{%3, %4, %5}], [%2], %6;" ::"r"(target),
        "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "l"(policy)
        : "memory");
}

/// Copies the box into every block of the cluster whose bit in `blocks` is set, at the same place, each counting at its
/// own barrier.
__device__ __forceinline__ void tma_load_multicast(unsigned target, const TensorMap& map, unsigned barrier, int x,
                                                   int y, int z, unsigned short blocks) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
        "{%4, %5, %6}], [%2], %3;" ::"r"(target),
        "l"(&map), "r"(barrier), "h"(blocks), "r"(x), "r"(y), "r"(z)
        : "memory");
}

/// The same for what stays in L2 as `policy` says.
__device__ __forceinline__ void tma_load_multicast(unsigned target, const TensorMap& map, unsigned barrier, int x,
                                                   int y, int z, unsigned short blocks, unsigned long long policy) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint "
        "[%0], [%1, {%4, %5, %6}], [%2], %3, %7;" ::"r"(target),
        "l"(&map), "r"(barrier), "h"(blocks), "r"(x), "r"(y), "r"(z), "l"(policy)
        : "memory");
}

__device__ __forceinline__ void prefetch_tensor_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

}  // namespace smlora::ptx
