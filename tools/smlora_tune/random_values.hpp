// Random tensors, made fast enough for weights of many gigabytes.
#pragma once

#include <smlora/memory.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <string_view>
#include <vector>

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

/// How tokens choose their experts.
enum class Skew {
    uniform,  ///< every expert alike
    zipf,     ///< the n-th most popular expert with weight 1 / n, as trained routers are, roughly
    one,      ///< everything to one expert: the worst balance there is
};

/// [T, top_k] expert indices. The experts of a token are distinct where E and `skew` allow it. About `left_out` of the
/// entries are -1, as for experts on another rank.
[[nodiscard]] std::vector<std::int64_t> random_top_idx(std::int64_t T, std::int64_t top_k, std::int64_t E, Skew skew,
                                                       double left_out, std::uint64_t seed);

}  // namespace smlora::tool
