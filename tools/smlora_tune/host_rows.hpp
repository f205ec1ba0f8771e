// Reading parts of device tensors as numbers of the host.
#pragma once

#include "smlora_tune/operands.hpp"

#include <cstdint>
#include <vector>

namespace smlora::tool {

/// Elements first .. first + count of the tensor's memory.
[[nodiscard]] std::vector<double> read_elements(const Array& array, std::int64_t first, std::int64_t count);

/// The rows `rows` of a matrix whose rows are `stride` elements apart, the first `width` elements of each.
[[nodiscard]] std::vector<double> read_rows(const Array& array, std::int64_t stride, std::int64_t width,
                                            const std::vector<std::int64_t>& rows);

/// The matrices `experts` of a tensor [E, rows, columns] with any strides, each row-major.
[[nodiscard]] std::vector<double> read_experts(const Array& array, const std::vector<std::int64_t>& experts);

/// The integers of a tensor of int32 or int64.
[[nodiscard]] std::vector<std::int64_t> read_integers(const Array& array);

}  // namespace smlora::tool
