// The adapter's weights as fragments, for columns in the order of a decoder (weight/wgmma_nibbles.cuh) whose reduction is
// strided.
#pragma once

#include "ptx/shared.cuh"
#include "ptx/shared_pairs.cuh"
#include "ptx/thread.cuh"
#include "swizzle.cuh"
#include "types.cuh"

namespace smlora::grouped_product_packed {

/// Of k16 step `k`, both m64 of warpgroup `half`, from weights of PITCH / 2 ranks that lie as weight::Wgmma<Plain>
/// copies them; MAJOR 0: ranks contiguous. a[m]: as WgmmaOfRegisters has it.
template <int MAJOR, int PITCH>
__device__ __forceinline__ void adapter_fragments(uint32 (&a)[2][4], unsigned weights, int half, int k) {
    const int thread = ptx::thread_here();
    const int lane = thread & 31;
    const int warp = (thread >> 5) & 3;
    const int column = half * 128 + warp * 32 + lane / 4 * 4;  // the first of the thread's four
#pragma unroll
    for (int k8 = 0; k8 < 2; ++k8) {
        const int rank = k * 16 + k8 * 8 + lane % 4 * 2;
        if constexpr (MAJOR == 0) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const unsigned at = swizzled<PITCH / 16>(column + i, rank / 8) + static_cast<unsigned>(rank % 8 * 2);
                a[i / 2][k8 * 2 + i % 2] = ptx::load_shared(weights + at);
            }
        } else {
            // Pieces of 64 columns; a row of a piece is a rank.
            const unsigned piece = weights + static_cast<unsigned>(column / 64 * 64 * PITCH);
            uint32 low[2];
            uint32 high[2];
            const auto at = [&](int row) {
                return piece + swizzled<8>(row, column % 64 / 8) + static_cast<unsigned>(column % 8 * 2);
            };
            ptx::load_shared(low, at(rank));
            ptx::load_shared(high, at(rank + 1));
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                a[m][k8 * 2] = (low[m] & 0xFFFFU) | high[m] << 16;
                a[m][k8 * 2 + 1] = low[m] >> 16 | (high[m] & 0xFFFF0000U);
            }
        }
    }
}

}  // namespace smlora::grouped_product_packed
