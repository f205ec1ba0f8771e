// The adapter's weights as fragments, for columns in the order of codes (weight/stage_codes.cuh) whose reduction is
// strided.
#pragma once

#include "ptx/shared.cuh"
#include "ptx/thread.cuh"
#include "swizzle.cuh"
#include "types.cuh"

namespace smlora::grouped_product_packed {

/// Of k16 step `k`, both m64 of warpgroup `half`, from weights of PITCH / 2 ranks that lie as weight::Wgmma<Plain>
/// copies them; MAJOR 0: ranks contiguous. a[m]: as WgmmaOfRegisters has it.
template <class Codes, int MAJOR, int PITCH>
__device__ __forceinline__ void adapter_fragments(uint32 (&a)[2][4], unsigned weights, int half, int k) {
    const int thread = ptx::thread_here();
    const int lane = thread & 31;
    const int warp = (thread >> 5) & 3;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        const int column = half * 128 + Codes::column(warp, lane / 4, m);  // and the next one
#pragma unroll
        for (int k8 = 0; k8 < 2; ++k8) {
            const int rank = k * 16 + k8 * 8 + lane % 4 * 2;
            if constexpr (MAJOR == 0) {
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    a[m][k8 * 2 + h] = ptx::load_shared(weights + swizzled<PITCH / 16>(column + h, rank / 8) +
                                                        static_cast<unsigned>(rank % 8 * 2));
                }
            } else {
                // Pieces of 64 columns; a row of a piece is a rank.
                const auto pair = [&](int row) {
                    return ptx::load_shared(weights + static_cast<unsigned>(column / 64 * 64 * PITCH) +
                                            swizzled<8>(row, column % 64 / 8) + static_cast<unsigned>(column % 8 * 2));
                };
                const uint32 low = pair(rank);
                const uint32 high = pair(rank + 1);
                a[m][k8 * 2] = (low & 0xFFFFU) | high << 16;
                a[m][k8 * 2 + 1] = low >> 16 | (high & 0xFFFF0000U);
            }
        }
    }
}

}  // namespace smlora::grouped_product_packed
