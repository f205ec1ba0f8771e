// d += a b on a warpgroup's tensor cores.
#pragma once

#include "device/element.hpp"

namespace smlora::ptx {

__device__ SMLORA_EMULATED void wgmma_fence(SMLORA_WHERE) { emulator::runtime->wgmma_fence(where); }

__device__ SMLORA_EMULATED void wgmma_commit(SMLORA_WHERE) { emulator::runtime->wgmma_commit(where); }

template <int Pending>
__device__ SMLORA_EMULATED void wgmma_wait(SMLORA_WHERE) {
    emulator::runtime->wgmma_wait(Pending, where);
}

template <int Count>
__device__ __forceinline__ void wgmma_hold(float (&)[Count]) {}

template <class Element, int N, int A_STRIDED, int B_STRIDED>
struct Wgmma {
    static_assert(N % 8 == 0 && N >= 8 && N <= 256, "a multiple of 8 to 256");
    static __device__ SMLORA_EMULATED void run(float (&d)[N / 2], uint64 a, uint64 b, SMLORA_WHERE) {
        emulator::runtime->wgmma(emulator::format_of<Element>, N, A_STRIDED != 0, B_STRIDED != 0, d, a, b, where);
    }
};

}  // namespace smlora::ptx
