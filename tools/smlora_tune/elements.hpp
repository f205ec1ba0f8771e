// Between the element types of tensors and the numbers of the host.
#pragma once

#include <smlora/dtype.hpp>

#include <cstddef>
#include <cstdint>

namespace smlora::tool {

/// Rounds to nearest, ties to even; to 16-bit types by way of fp32. `dtype`: a floating-point type.
void encode(const double* values, std::size_t count, DType dtype, void* elements);

/// Exact. `dtype`: a floating-point type.
void decode(const void* elements, std::size_t count, DType dtype, double* values);

/// Elements that are infinite or not a number. `dtype`: a floating-point type.
[[nodiscard]] std::size_t count_non_finite(const void* elements, std::size_t count, DType dtype);

/// An element of a tensor of int32 or int64.
[[nodiscard]] std::int64_t integer_at(const void* elements, std::size_t index, DType dtype);
void set_integer(void* elements, std::size_t index, DType dtype, std::int64_t value);

}  // namespace smlora::tool
