#include "families/tensor_layout.hpp"

#include <algorithm>

namespace smlora::families {

bool aligned16(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

bool rows_aligned(std::initializer_list<const Tensor*> tensors) {
    return std::all_of(tensors.begin(), tensors.end(), [](const Tensor* tensor) {
        if (!tensor->given()) return true;
        const auto per_16_bytes = static_cast<std::int64_t>(16 / size_of(tensor->dtype));
        bool aligned = aligned16(tensor->data);
        for (std::int32_t i = 0; i + 1 < tensor->ndim; ++i) {
            aligned = aligned && tensor->strides[static_cast<std::size_t>(i)] % per_16_bytes == 0;
        }
        return aligned && tensor->shape[static_cast<std::size_t>(tensor->ndim - 1)] % per_16_bytes == 0;
    });
}

bool tensor_cores_fit(const Problem& problem, std::initializer_list<const Tensor*> tensors,
                      std::initializer_list<const Tensor*> rank_rows) {
    if (size_of(problem.dtype) != 2 || !rows_aligned(tensors)) return false;
    if (!std::all_of(rank_rows.begin(), rank_rows.end(), [](const Tensor* rows) { return aligned16(rows->data); })) {
        return false;
    }
    // Row offsets are counted in 16-byte units in 32 bits.
    constexpr std::int64_t limit = std::int64_t{1} << 32;
    return std::all_of(tensors.begin(), tensors.end(), [](const Tensor* tensor) {
        return tensor->ndim != 2 || tensor->shape[0] * tensor->strides[0] / 8 < limit;
    });
}

}  // namespace smlora::families
