// Views of memory that the caller owns.
#pragma once

#include <smlora/dtype.hpp>

#include <array>
#include <cstdint>
#include <initializer_list>

namespace smlora {

/// A strided view: the caller owns `data` (host memory on the CPU backend, device memory on the CUDA backend).
/// Strides count elements, not bytes. A default-made Tensor means "not given".
struct Tensor {
    static constexpr int max_ndim = 4;  ///< the most extents

    void* data = nullptr;                          ///< the element at index 0 of every extent
    DType dtype = DType::bf16;                     ///< of the elements
    std::int32_t ndim = 0;                         ///< number of extents; 0: not given
    std::array<std::int64_t, max_ndim> shape{};    ///< extents
    std::array<std::int64_t, max_ndim> strides{};  ///< elements from one index of an extent to the next

    Tensor() = default;  ///< Not given.

    /// A row-major view.
    Tensor(void* data_, DType dtype_, std::initializer_list<std::int64_t> shape_) : data(data_), dtype(dtype_) {
        for (std::int64_t extent : shape_) {
            if (ndim < max_ndim) shape[static_cast<std::size_t>(ndim++)] = extent;
        }
        std::int64_t stride = 1;
        for (auto i = static_cast<std::size_t>(ndim); i-- > 0;) {
            strides[i] = stride;
            stride *= shape[i];
        }
    }

    /// A view with strides of its own, one for each extent.
    Tensor(void* data_, DType dtype_, std::initializer_list<std::int64_t> shape_,
           std::initializer_list<std::int64_t> strides_)
        : Tensor(data_, dtype_, shape_) {
        std::size_t i = 0;
        for (std::int64_t stride : strides_) {
            if (i < static_cast<std::size_t>(ndim)) strides[i++] = stride;
        }
    }

    /// Whether it is a view at all.
    [[nodiscard]] bool given() const noexcept { return ndim > 0; }

    /// Number of elements.
    [[nodiscard]] std::int64_t numel() const noexcept {
        std::int64_t n = 1;
        for (std::int32_t i = 0; i < ndim; ++i) n *= shape[static_cast<std::size_t>(i)];
        return n;
    }
};

}  // namespace smlora
