// Element types of tensors.
#pragma once

#include <smlora/export.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace smlora {

enum class DType : std::int32_t {
    bf16 = 0,
    fp16 = 1,
    fp32 = 2,
    fp64 = 3,  ///< CPU backend only
    int32 = 4,
    int64 = 5,
};

/// Bytes of one element.
[[nodiscard]] SMLORA_API std::size_t size_of(DType dtype);

/// "bf16", "fp16", "fp32", "fp64", "int32", "int64".
[[nodiscard]] SMLORA_API std::string_view name(DType dtype);

/// The inverse of name(), which also takes "bfloat16", "float16", "half", "float32", "float", "float64" and "double".
/// Throws Error{invalid_argument}.
[[nodiscard]] SMLORA_API DType dtype_from_name(std::string_view text);

}  // namespace smlora
