// What kernels need to know of how the tensors of a call lie in memory.
#pragma once

#include <smlora/problem.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <initializer_list>

namespace smlora::families {

[[nodiscard]] bool aligned16(const void* pointer);

/// Row stride of a tensor whose last dimension is contiguous; 0 without a tensor.
[[nodiscard]] inline std::int64_t row_stride(const Tensor& tensor) {
    return tensor.given() ? tensor.strides[static_cast<std::size_t>(tensor.ndim - 2)] : 0;
}

/// Whether every row of every one of these tensors that is given starts at a multiple of 16 bytes and is a whole
/// number of them long.
[[nodiscard]] bool rows_aligned(std::initializer_list<const Tensor*> tensors);

/// Whether the tensor-core kernels can serve the problem on these tensors (rows and weights; not the adapter).
/// `rank_rows`: xa and yb, whose rows are padded to whole 16 bytes, so that only where they begin counts.
[[nodiscard]] bool tensor_cores_fit(const Problem& problem, std::initializer_list<const Tensor*> tensors,
                                    std::initializer_list<const Tensor*> rank_rows);

}  // namespace smlora::families
