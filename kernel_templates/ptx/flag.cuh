// Flags in global memory, by which blocks of one launch tell each other what they have written (sm_70; the fence
// sm_90).
#pragma once

namespace smlora::ptx {

/// Sets the flag. Who sees it set sees what this thread, and those that met it at a barrier before, have written.
__device__ __forceinline__ void set_flag(unsigned* flag) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(1U) : "memory");
}

/// Waits until the flag is set. What it announces can be read by this thread and by bulk copies that it begins.
__device__ __forceinline__ void wait_for_flag(const unsigned* flag) {
    unsigned value;
    do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
    } while (value == 0);
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

}  // namespace smlora::ptx
