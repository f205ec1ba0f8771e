// Shared memory by address.
#pragma once

namespace smlora::ptx {

__device__ __forceinline__ void store_shared(unsigned address, unsigned value) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

}  // namespace smlora::ptx
