// What forward, backward_input and backward_lora share: reading off the variant of a call, the adapter's matrices in
// the layout of the kernels, and the launch of a grouped product.
#pragma once

#include "args/grouped_product.h"
#include "engine/cuda_call.hpp"
#include "engine/scratch.hpp"
#include "plan/plan.hpp"

#include <smlora/operations.hpp>

#include <cstdint>
#include <initializer_list>

namespace smlora::families {

/// Whether every row of every one of these tensors that is given starts at a multiple of 16 bytes and is a whole
/// number of them long.
[[nodiscard]] bool rows_aligned(std::initializer_list<const Tensor*> tensors);

/// Whether the tensor-core kernels can serve the problem on these tensors (rows and weights; not the adapter).
/// `rank_rows`: xa and yb, whose rows are padded to whole 16-byte pieces, so that only where they begin counts.
[[nodiscard]] bool tensor_cores_fit(const Problem& problem, std::initializer_list<const Tensor*> tensors,
                                    std::initializer_list<const Tensor*> rank_rows);

/// An adapter matrix as the kernels read it: per expert a row-major matrix.
struct AdapterMatrix {
    const void* data = nullptr;
    std::int64_t expert_stride = 0;
    std::int64_t row_stride = 0;
};

/// Whether the view [E, outer, inner] must be repacked before the kernels can read it.
[[nodiscard]] bool needs_packing(const Problem& problem, const Tensor& view, bool tensor_cores);

/// The dimension with the smallest stride: 0 inner, 1 outer, 2 expert.
[[nodiscard]] std::int8_t fastest_dimension(const Tensor& view);

/// Fills in pack_a, fastest_a, pack_b and fastest_b for the matrices that the call reads.
void set_packing(plan::Variant& variant, const Problem& problem, const Tensor& A, const Tensor& B);

/// Bytes of the packed A [E, padded rank, K] or B [E, N, padded rank].
[[nodiscard]] std::int64_t packed_a_bytes(const Problem& problem);
[[nodiscard]] std::int64_t packed_b_bytes(const Problem& problem);

/// Bytes of xa or yb for M rows.
[[nodiscard]] std::int64_t rank_rows_bytes(const Problem& problem, std::int64_t M);

/// A or B as the kernels read it, repacked into scratch memory if the plan says so.
[[nodiscard]] AdapterMatrix adapter_a(engine::CudaCall& call, const plan::Plan& plan, const Problem& problem,
                                      const Tensor& A, engine::Scratch& scratch);
[[nodiscard]] AdapterMatrix adapter_b(engine::CudaCall& call, const plan::Plan& plan, const Problem& problem,
                                      const Tensor& B, engine::Scratch& scratch);

/// Arguments that every product of a call has in common.
[[nodiscard]] GroupedProductArgs product_args(const Problem& problem, const Routing& routing, std::int64_t M);

/// Row stride of a tensor whose last dimension is contiguous.
[[nodiscard]] inline std::int64_t row_stride(const Tensor& tensor) {
    return tensor.strides[static_cast<std::size_t>(tensor.ndim - 2)];
}

/// out_i = scaling row(i) matrix_e into rows of the padded rank: XA or YB.
void launch_rank_product(engine::CudaCall& call, const plan::Plan& plan, plan::Role role, GroupedProductArgs args,
                         const Tensor& rows, const AdapterMatrix& matrix, float scaling, void* out,
                         const Problem& problem);

/// The adapter of a product: out_i += rank row_i adapted_e, where rank row_i = scaling row(i) ranked_e.
struct ProductAdapter {
    AdapterMatrix ranked;   ///< forward: A, dX: B
    AdapterMatrix adapted;  ///< forward: B, dX: A
    float scaling = 1.0F;
    void* rank_rows = nullptr;  ///< written: XA or YB
    void* progress = nullptr;   ///< scratch memory of wgmma_progress_bytes()
};

/// The product of `rows`, with its adapter if the problem has one; `args` tells the rest.
void launch_product(engine::CudaCall& call, const plan::Plan& plan, plan::Role rank_role, const Problem& problem,
                    const Tensor& rows, const ProductAdapter& adapter, GroupedProductArgs args);

}  // namespace smlora::families
