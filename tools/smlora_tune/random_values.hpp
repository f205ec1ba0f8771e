// Random tensors, made fast enough for weights of many gigabytes.
#pragma once

#include "tune/random_routing.hpp"

#include <smlora/memory.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <string_view>

namespace smlora::tool {

enum class Distribution {
    normal,    ///< mean 0
    positive,  ///< uniform between 0.05 and 1: gates
};

/// Fills `count` elements of `buffer`, times `scale`. Up to some millions of elements are drawn; a larger tensor
/// repeats them with a prime period, so that no two rows of a matrix are alike. The same `seed` and `role` give the
/// same values on every machine with the same C++ library; other roles give independent ones.
void fill_random(Buffer& buffer, std::int64_t count, DType dtype, Distribution distribution, double scale,
                 std::uint64_t seed, std::string_view role);

using tune::random_top_idx;
using tune::Skew;

}  // namespace smlora::tool
