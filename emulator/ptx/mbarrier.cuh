// Barriers in shared memory that count arrivals and bytes.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED void mbarrier_init(unsigned barrier, unsigned count, SMLORA_WHERE) {
    emulator::runtime->mbarrier_init(barrier, count, where);
}

__device__ __forceinline__ void fence_mbarrier_init() {}

__device__ SMLORA_EMULATED void mbarrier_arrive(unsigned barrier, SMLORA_WHERE) {
    emulator::runtime->mbarrier_arrive(barrier, where);
}

__device__ SMLORA_EMULATED void mbarrier_arrive_expect(unsigned barrier, unsigned bytes, SMLORA_WHERE) {
    emulator::runtime->mbarrier_expect(barrier, bytes, where);
    emulator::runtime->mbarrier_arrive(barrier, where);
}

__device__ SMLORA_EMULATED void mbarrier_arrive_remote(unsigned barrier, unsigned rank, SMLORA_WHERE) {
    emulator::runtime->mbarrier_arrive(emulator::runtime->map_shared_rank(barrier, rank, where), where);
}

__device__ SMLORA_EMULATED void mbarrier_wait(unsigned barrier, unsigned parity, SMLORA_WHERE) {
    emulator::runtime->mbarrier_wait(barrier, parity, where);
}

__device__ SMLORA_EMULATED void cp_async_arrive(unsigned barrier, SMLORA_WHERE) {
    emulator::runtime->cp_async_arrive(barrier, where);
}

}  // namespace smlora::ptx
