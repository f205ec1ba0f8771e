// The views that tensor maps of the products on wgmma are made of.
#pragma once

#include "gpu/tensor_map.hpp"

#include <cstdint>

namespace smlora::families {

/// E matrices [rows, columns], columns contiguous; strides and boxes as in gpu::BoxedView.
inline gpu::BoxedView matrices(const void* data, std::int64_t E, std::int64_t rows, std::int64_t columns,
                               std::int64_t expert_stride, std::int64_t row_stride, int box_rows, int box_columns) {
    // A stride of a dimension of one is never used, but must be one that the driver takes.
    if (E == 1) expert_stride = rows * row_stride;
    return {data, {E, rows, columns}, expert_stride, row_stride, box_rows, box_columns};
}

}  // namespace smlora::families
