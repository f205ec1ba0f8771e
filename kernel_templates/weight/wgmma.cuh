// Weights of grouped_product_wgmma: from memory to a stage by TMA, multiplied out of shared memory.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "ptx/synchronise.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "types.cuh"
#include "weight/plain.cuh"
#include "wgmma_operand.cuh"

namespace smlora::weight {

/// One step's weights, [tile_columns x DEPTH]; MAJOR 0: the reduction is contiguous.
template <class Format, class Element, int MAJOR, int DEPTH>
struct Wgmma;

template <class Element, int MAJOR, int DEPTH>
struct Wgmma<Plain, Element, MAJOR, DEPTH> {
    /// Copies that a block makes of a step's weights, one for each 64 columns unless the reduction is contiguous.
    template <int CLUSTER>
    static constexpr int copies = MAJOR == 0 ? 1 : grouped_product_wgmma::tile_columns / CLUSTER / 64;

    /// Makes copy `number` of them, of matrix `matrix` of `map`. Each block of a cluster copies its share to all.
    /// `policy`: none, or how long the weights stay in L2: ptx/l2_policy.cuh.
    template <int CLUSTER, class... Policy>
    static __device__ __forceinline__ void copy(int number, unsigned target, const TensorMap& map, unsigned barrier,
                                                int matrix, int column, int red, Policy... policy) {
        const int block = CLUSTER == 1 ? 0 : static_cast<int>(ptx::cluster_block_rank());
        const int own = block * (grouped_product_wgmma::tile_columns / CLUSTER) + number * 64;
        const unsigned to = target + static_cast<unsigned>(own * DEPTH * 2);
        const int x = MAJOR == 0 ? red : column + own;
        const int y = MAJOR == 0 ? column + own : red;
        if constexpr (CLUSTER == 1) {
            ptx::tma_load(to, map, barrier, x, y, matrix, policy...);
        } else {
            constexpr auto all = static_cast<unsigned short>((1 << CLUSTER) - 1);
            ptx::tma_load_multicast(to, map, barrier, x, y, matrix, all, policy...);
        }
    }

    /// sums += the weights of m64 `m` at `weights`, k16 step `k`, x the operand `rows` of N rows.
    template <int N>
    static __device__ __forceinline__ void multiply(float (&sums)[N / 2], unsigned weights, int m, int k, uint64 rows) {
        ptx::Wgmma<Element, N, MAJOR, 0>::run(sums, operand(weights, m, k), rows);
    }

    static __device__ __forceinline__ uint64 operand(unsigned weights, int m, int k) {
        const unsigned piece = static_cast<unsigned>(m) * 64U * DEPTH * 2U;
        if constexpr (MAJOR != 0) {
            return wgmma_operand(weights + piece + static_cast<unsigned>(k) * 2048U, 128, 1024, 0);
        } else {
            constexpr int pitch = DEPTH * 2;
            return wgmma_operand(weights + piece + static_cast<unsigned>(k) * 32U, pitch, 8 * pitch, 0);
        }
    }
};

}  // namespace smlora::weight
