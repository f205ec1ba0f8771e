// Weights of grouped_product_mma: from memory to a stage with cp.async, from there to registers with ldmatrix.
#pragma once

#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "swizzle.cuh"
#include "types.cuh"
#include "weight/plain.cuh"

namespace smlora::weight {

/// Whether a stage holds codes, which are decoded a step ahead of their products: weight/mma_packed.cuh.
template <class Format>
inline constexpr bool is_decoded = false;

/// Weights of a block's tile. MAJOR 0: a matrix's rows are outputs and lie along the reduction, which is DEPTH long;
/// MAJOR 1: the reverse. STRIDE: elements between rows, 0 if only the arguments know. L: the kernel's Layout.
template <class Format, class C, class L, int MAJOR, int DEPTH, int STRIDE>
struct Mma;

template <class C, class L, int MAJOR, int DEPTH, int STRIDE>
struct Mma<Plain, C, L, MAJOR, DEPTH, STRIDE> {
    using Element = typename C::Element;

    /// What is copied beside the arguments of every product: nothing.
    struct Parts {};

    /// Copies one step's weights of the matrix `source`: output `column` and those after it, the reduction from `red`.
    static __device__ __forceinline__ void copy(unsigned target, const Element* source, int64 stride, int column,
                                                int red) {
        constexpr int chunks = MAJOR == 0 ? L::k_chunks : L::n_chunks;
        constexpr int rows = MAJOR == 0 ? C::TILE_N : C::TILE_K;
        constexpr int rows_a_pass = L::threads / chunks;
        constexpr int passes = ceil_div(rows, rows_a_pass);
        constexpr int row_end = MAJOR == 0 ? C::OUT : DEPTH;
        constexpr int chunk_end = MAJOR == 0 ? DEPTH : C::OUT;
        constexpr bool row_edge = row_end % rows != 0;
        constexpr bool chunk_edge = chunk_end % (chunks * 8) != 0;
        static_assert(L::threads % chunks == 0, "a thread keeps its chunk column over the passes");

        if constexpr (STRIDE > 0) stride = STRIDE;
        const int thread_row = static_cast<int>(threadIdx.x) / chunks;
        const int chunk = static_cast<int>(threadIdx.x) % chunks;
        const int first_row = (MAJOR == 0 ? column : red) + thread_row;
        const int first_element = (MAJOR == 0 ? red : column) + chunk * 8;
        const bool chunk_inside = !chunk_edge || first_element < chunk_end;
        const Element* const from = source + static_cast<int64>(first_row) * stride + first_element;
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
            const int row = thread_row + pass * rows_a_pass;
            if (rows % rows_a_pass != 0 && row >= rows) break;
            const unsigned to = target + swizzled<chunks>(row, chunk);
            if constexpr (row_edge || chunk_edge) {
                const bool inside = chunk_inside && (!row_edge || first_row + pass * rows_a_pass < row_end);
                ptx::cp_async_16(to, inside ? from + pass * rows_a_pass * stride : source, inside ? 16U : 0U);
            } else {
                ptx::cp_async_16(to, from + pass * rows_a_pass * stride);
            }
        }
    }

    /// The fragments of one k16 step, N_PAIRS x n16 from column `first` of the tile on.
    template <int N_PAIRS>
    static __device__ __forceinline__ void load(unsigned (&fragments)[N_PAIRS][4], unsigned weights, int k16,
                                                int first) {
        const int lane = static_cast<int>(threadIdx.x) & 31;
#pragma unroll
        for (int n = 0; n < N_PAIRS; ++n) {
            const int column = first + n * 16;
            if constexpr (MAJOR == 0) {
                const int row = column + (lane & 7) + ((lane >> 4) << 3);
                ptx::ldmatrix_x4(fragments[n], weights + swizzled<L::k_chunks>(row, k16 * 2 + ((lane >> 3) & 1)));
            } else {
                const int row = k16 * 16 + (lane & 15);
                ptx::ldmatrix_x4_trans(fragments[n], weights + swizzled<L::n_chunks>(row, column / 8 + (lane >> 4)));
            }
        }
    }
};

}  // namespace smlora::weight
