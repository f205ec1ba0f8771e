// d += a b on tensor cores: m16 n8 k16, 16-bit operands, fp32 accumulators.
#pragma once

#include "device/element.hpp"

namespace smlora::ptx {

template <class Element>
__device__ SMLORA_EMULATED void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                             SMLORA_WHERE) {
    const unsigned b[2] = {b0, b1};
    emulator::runtime->mma_m16n8k16(emulator::format_of<Element>, d, a, b, where);
}

}  // namespace smlora::ptx
