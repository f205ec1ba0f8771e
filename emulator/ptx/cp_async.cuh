// Asynchronous copies from global to shared memory.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED unsigned shared_address(const void* pointer, SMLORA_WHERE) {
    return emulator::runtime->shared_address(pointer, where);
}

__device__ SMLORA_EMULATED void cp_async_16(unsigned target, const void* source, unsigned bytes, SMLORA_WHERE) {
    emulator::runtime->cp_async(target, source, 16, bytes, where);
}

__device__ SMLORA_EMULATED void cp_async_16(unsigned target, const void* source, SMLORA_WHERE) {
    emulator::runtime->cp_async(target, source, 16, 16, where);
}

template <int TargetOffset, int SourceOffset>
__device__ SMLORA_EMULATED void cp_async_16_at(unsigned target, const void* source, SMLORA_WHERE) {
    emulator::runtime->cp_async(target + TargetOffset, static_cast<const char*>(source) + SourceOffset, 16, 16, where);
}

__device__ SMLORA_EMULATED void cp_async_commit() { emulator::runtime->cp_async_commit(); }

template <int Pending>
__device__ SMLORA_EMULATED void cp_async_wait(SMLORA_WHERE) {
    emulator::runtime->cp_async_wait(Pending, where);
}

}  // namespace smlora::ptx
