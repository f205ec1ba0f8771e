// Loads of global memory that say what the caches shall do with them.
#pragma once

#include "types.cuh"

namespace smlora::ptx {

/// 16 bytes that this multiprocessor reads once, of memory that no one writes meanwhile: not kept in its L1 (sm_80).
/// Volatile, because how many loads are under way is decided by where they stand.
__device__ __forceinline__ Vec16 load_once(const void* address) {
    Vec16 value;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.word[0]), "=r"(value.word[1]), "=r"(value.word[2]), "=r"(value.word[3])
                 : "l"(address));
    return value;
}

}  // namespace smlora::ptx
