// Asynchronous copies from global to shared memory (sm_80).
#pragma once

namespace smlora::ptx {

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

/// Copies 16 bytes past L1; `bytes` < 16 zero-fills the rest (0 reads nothing).
__device__ __forceinline__ void cp_async_16(unsigned target, const void* source, unsigned bytes) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void cp_async_16(unsigned target, const void* source) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(target), "l"(source) : "memory");
}

/// The same at distances in bytes that the instruction holds, so that no address has to be added up.
template <int TargetOffset, int SourceOffset>
__device__ __forceinline__ void cp_async_16_at(unsigned target, const void* source) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0 + %2], [%1 + %3], 16;" ::"r"(target), "l"(source),
                 "n"(TargetOffset), "n"(SourceOffset)
                 : "memory");
}

__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most `Pending` of this thread's newest groups are still under way.
template <int Pending>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

}  // namespace smlora::ptx
