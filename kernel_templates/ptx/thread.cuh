// Which thread this is, where it is asked for.
#pragma once

namespace smlora::ptx {

/// threadIdx.x, read anew: what follows from it takes no register before.
__device__ __forceinline__ int thread_here() {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

}  // namespace smlora::ptx
