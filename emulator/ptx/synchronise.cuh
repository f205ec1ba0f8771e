// Barriers and fences beside __syncthreads, and what roles of a block ask of the scheduler.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED void named_barrier_sync(int id, int threads, SMLORA_WHERE) {
    emulator::runtime->barrier_sync(static_cast<unsigned>(id), static_cast<unsigned>(threads), where);
}

__device__ SMLORA_EMULATED void named_barrier_arrive(int id, int threads, SMLORA_WHERE) {
    emulator::runtime->barrier_arrive(static_cast<unsigned>(id), static_cast<unsigned>(threads), where);
}

__device__ SMLORA_EMULATED void fence_proxy_async() { emulator::runtime->fence_proxy_async(); }

template <int Registers>
__device__ SMLORA_EMULATED void give_registers_up(SMLORA_WHERE) {
    emulator::runtime->set_registers(false, Registers, where);
}
template <int Registers>
__device__ SMLORA_EMULATED void take_registers(SMLORA_WHERE) {
    emulator::runtime->set_registers(true, Registers, where);
}

__device__ SMLORA_EMULATED void wait_for_earlier_kernels(SMLORA_WHERE) {
    emulator::runtime->wait_for_earlier_kernels(where);
}

__device__ SMLORA_EMULATED void let_next_kernel_begin() { emulator::runtime->let_next_kernel_begin(); }

__device__ SMLORA_EMULATED unsigned cluster_block_rank() { return emulator::runtime->cluster_block_rank(); }

__device__ SMLORA_EMULATED void cluster_sync(SMLORA_WHERE) { emulator::runtime->cluster_sync(where); }

}  // namespace smlora::ptx
