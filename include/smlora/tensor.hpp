// Views of memory that the caller owns.
#pragma once

#include <smlora/dtype.hpp>
#include <smlora/error.hpp>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace smlora {

/// A strided view: the caller owns `data` (host memory on the CPU backend, device memory on the CUDA backend).
/// Strides count elements, not bytes. A default-made Tensor means "not given". What a view must be like besides, the
/// operation that takes it checks.
struct Tensor {
    static constexpr int max_ndim = 4;  ///< the most extents

    void* data = nullptr;                          ///< the element at index 0 of every extent
    DType dtype = DType::bf16;                     ///< of the elements
    std::int32_t ndim = 0;                         ///< number of extents; 0: not given
    std::array<std::int64_t, max_ndim> shape{};    ///< extents
    std::array<std::int64_t, max_ndim> strides{};  ///< elements from one index of an extent to the next

    Tensor() = default;  ///< Not given.

    /// A row-major view. Throws Error{invalid_argument} for more than max_ndim extents.
    Tensor(void* data_, DType dtype_, std::initializer_list<std::int64_t> shape_) : data(data_), dtype(dtype_) {
        if (shape_.size() > max_ndim) {
            throw Error(ErrorCode::invalid_argument, "shape: expected at most " + std::to_string(max_ndim) +
                                                         " extents, got " + std::to_string(shape_.size()));
        }
        for (std::int64_t extent : shape_) shape[static_cast<std::size_t>(ndim++)] = extent;
        std::int64_t stride = 1;
        for (auto i = static_cast<std::size_t>(ndim); i-- > 0;) {
            strides[i] = stride;
            stride *= shape[i];
        }
    }

    /// A view with strides of its own. Throws Error{invalid_argument} unless there is one for each extent.
    Tensor(void* data_, DType dtype_, std::initializer_list<std::int64_t> shape_,
           std::initializer_list<std::int64_t> strides_)
        : Tensor(data_, dtype_, shape_) {
        if (strides_.size() != shape_.size()) {
            throw Error(ErrorCode::invalid_argument, "strides: expected one for each of " + std::to_string(ndim) +
                                                         " extents, got " + std::to_string(strides_.size()));
        }
        std::size_t i = 0;
        for (std::int64_t stride : strides_) strides[i++] = stride;
    }

    /// Whether it is a view at all.
    [[nodiscard]] bool given() const noexcept { return ndim != 0; }

    /// Number of elements.
    [[nodiscard]] std::int64_t numel() const noexcept {
        std::int64_t n = 1;
        for (std::int32_t i = 0; i < ndim; ++i) n *= shape[static_cast<std::size_t>(i)];
        return n;
    }
};

}  // namespace smlora
