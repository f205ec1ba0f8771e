// Bulk copies of boxes of a tensor from global to shared memory.
#pragma once

#include "args/tensor_map.h"
#include "ptx/l2_policy.cuh"

namespace smlora::ptx {

__device__ SMLORA_EMULATED void tma_load(unsigned target, const TensorMap& map, unsigned barrier, int x, int y, int z,
                                         SMLORA_WHERE) {
    const int corner[3] = {x, y, z};
    emulator::runtime->tma_load(target, &map, barrier, corner, 3, 0, where);
}

__device__ SMLORA_EMULATED void tma_load(unsigned target, const TensorMap& map, unsigned barrier, int x, int y, int z,
                                         unsigned long long policy, SMLORA_WHERE) {
    emulator::check_policy(policy, where);
    tma_load(target, map, barrier, x, y, z, where);
}

__device__ SMLORA_EMULATED void tma_load_multicast(unsigned target, const TensorMap& map, unsigned barrier, int x,
                                                   int y, int z, unsigned short blocks, SMLORA_WHERE) {
    const int corner[3] = {x, y, z};
    emulator::runtime->tma_load(target, &map, barrier, corner, 3, blocks, where);
}

__device__ SMLORA_EMULATED void tma_load_multicast(unsigned target, const TensorMap& map, unsigned barrier, int x,
                                                   int y, int z, unsigned short blocks, unsigned long long policy,
                                                   SMLORA_WHERE) {
    emulator::check_policy(policy, where);
    tma_load_multicast(target, map, barrier, x, y, z, blocks, where);
}

__device__ __forceinline__ void prefetch_tensor_map(const TensorMap&) {}

}  // namespace smlora::ptx
