// Descriptions of tensors for bulk tensor copies.
#pragma once

#include "args/tensor_map.h"

#include <smlora/dtype.hpp>

#include <array>
#include <cstdint>

namespace smlora::gpu {

/// A view [outer, middle, inner] of 16-bit elements, inner contiguous; strides and box count elements.
struct BoxedView {
    const void* data = nullptr;  ///< 16-byte aligned
    std::array<std::int64_t, 3> shape{};
    std::int64_t outer_stride = 0, middle_stride = 0;  ///< multiples of 8
    int box_middle = 0, box_inner = 0;                 ///< what one copy brings; box_inner is 16, 32 or 64
};

/// The map of `view`, boxes swizzled in shared memory by their rows of 32, 64 or 128 bytes, elements outside zero.
/// Needs no context. Throws Error{cuda} if the driver refuses it.
[[nodiscard]] TensorMap tensor_map(const BoxedView& view, DType dtype);

}  // namespace smlora::gpu
