// Looking through all elements of an output, however large it is.
#pragma once

#include "workload/array.hpp"

#include <cstddef>
#include <string>

namespace smlora::tool {

struct Scan {
    std::string hash;            ///< of the bytes: equal for bitwise equal results
    std::size_t non_finite = 0;  ///< for floating-point types
};

/// The first `elements` elements of an array without gaps.
[[nodiscard]] Scan scan(const workload::Array& array, std::size_t elements);

}  // namespace smlora::tool
