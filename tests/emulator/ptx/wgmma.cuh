// d += a b on a warpgroup's tensor cores.
#pragma once

#include "device/element.hpp"

namespace smlora::ptx {

/// The matrix descriptor of the PTX ISA for rows of `pitch` bytes.
__device__ __forceinline__ uint64 wgmma_operand(unsigned address, int pitch, unsigned rows_step,
                                                unsigned columns_step) {
    const uint64 swizzle = pitch == 128 ? 1 : pitch == 64 ? 2 : 3;
    return static_cast<uint64>((address & 0x3FFFFU) >> 4) | static_cast<uint64>(columns_step >> 4) << 16 |
           static_cast<uint64>(rows_step >> 4) << 32 | swizzle << 62;
}

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
