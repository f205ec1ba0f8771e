// Where a role is in a ring of buffers whose barriers have phases.
#pragma once

namespace smlora {

template <int STAGES>
struct Ring {
    int stage = 0;
    unsigned parity = 0;

    __device__ __forceinline__ void next() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1U;
        }
    }
};

}  // namespace smlora
