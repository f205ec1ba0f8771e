// Element types of tensors.
#pragma once

#include <smlora/export.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace smlora {

/// The type of a tensor's elements.
enum class DType : std::int32_t {
    bf16 = 0,   ///< bfloat16
    fp16 = 1,   ///< IEEE half precision
    fp32 = 2,   ///< IEEE single precision
    fp64 = 3,   ///< IEEE double precision; CPU backend only
    int32 = 4,  ///< of routings
    int64 = 5,  ///< of routings
    uint8 = 6,  ///< of quantised weights, as the three below: packed codes, scales
    int8 = 7,   ///< codes
    e4m3 = 8,   ///< OCP float8: 4 exponent bits, 3 mantissa bits, no infinity
    e8m0 = 9,   ///< OCP scale: a power of two
};

/// Bytes of one element.
[[nodiscard]] SMLORA_API std::size_t size_of(DType dtype);

/// "bf16", "fp16", "fp32", "fp64", "int32", "int64", "uint8", "int8", "e4m3", "e8m0".
[[nodiscard]] SMLORA_API std::string_view name(DType dtype);

/// The inverse of name(), which also takes "bfloat16", "float16", "half", "float32", "float", "float64" and "double".
/// Throws Error{invalid_argument}.
[[nodiscard]] SMLORA_API DType dtype_from_name(std::string_view text);

}  // namespace smlora
