// Shared memory by address: two words at once, half a word, and a byte.
#pragma once

namespace smlora::ptx {

__device__ __forceinline__ unsigned load_shared_8(unsigned address) {
    unsigned value;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}

__device__ __forceinline__ unsigned load_shared_16(unsigned address) {
    unsigned short value;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(address) : "memory");
    return value;
}

/// `address` is a multiple of 8.
__device__ __forceinline__ void store_shared(unsigned address, const unsigned (&values)[2]) {
    asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(address), "r"(values[0]), "r"(values[1]) : "memory");
}

__device__ __forceinline__ void load_shared(unsigned (&values)[2], unsigned address) {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(values[0]), "=r"(values[1]) : "r"(address) : "memory");
}

}  // namespace smlora::ptx
