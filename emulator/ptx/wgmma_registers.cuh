// d += a b on a warpgroup's tensor cores, a in registers.
#pragma once

#include "device/element.hpp"
#include "ptx/wgmma.cuh"

namespace smlora::ptx {

template <class Element, int N, int B_STRIDED>
struct WgmmaOfRegisters {
    static_assert(N % 8 == 0 && N >= 8 && N <= 256, "a multiple of 8 to 256");
    static __device__ SMLORA_EMULATED void run(float (&d)[N / 2], const uint32 (&a)[4], uint64 b,
                                               bool accumulate = true, SMLORA_WHERE) {
        emulator::runtime->wgmma_of_registers(emulator::format_of<Element>, N, B_STRIDED != 0, accumulate, d, a, b,
                                              where);
    }
};

}  // namespace smlora::ptx
