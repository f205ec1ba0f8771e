// Shared memory by address.
#pragma once

namespace smlora::ptx {

__device__ __forceinline__ void store_shared(unsigned address, unsigned value) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

__device__ __forceinline__ unsigned load_shared(unsigned address) {
    unsigned value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}

/// Stores a word at the same place of block `rank` of the cluster (sm_90); its four bytes count at `barrier` there.
__device__ __forceinline__ void store_shared_remote(unsigned address, unsigned value, unsigned barrier, unsigned rank) {
    asm volatile(
        "{\n\t"
        ".reg .b32 to, counter;\n\t"
        "mapa.shared::cluster.u32 to, %0, %3;\n\t"
        "mapa.shared::cluster.u32 counter, %2, %3;\n\t"
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [to], %1, [counter];\n\t"
        "}" ::"r"(address),
        "r"(value), "r"(barrier), "r"(rank)
        : "memory");
}

/// Four words at once; `address` is a multiple of 16.
__device__ __forceinline__ void store_shared(unsigned address, const unsigned (&values)[4]) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(values[0]), "r"(values[1]),
                 "r"(values[2]), "r"(values[3])
                 : "memory");
}

__device__ __forceinline__ void load_shared(unsigned (&values)[4], unsigned address) {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
                 : "r"(address)
                 : "memory");
}

}  // namespace smlora::ptx
