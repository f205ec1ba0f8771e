// Routings that are made up: which experts the tokens of a measurement go to.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace smlora::tuning {

/// How tokens choose their experts.
enum class Skew {
    uniform,  ///< every expert alike
    zipf,     ///< the n-th most popular expert with weight 1 / n, as trained routers are, roughly
    one,      ///< everything to one expert: the worst balance there is
};

/// "uniform", "zipf", "one".
[[nodiscard]] std::string_view name(Skew skew);

/// [T, top_k] expert indices. The experts of a token are distinct where E and `skew` allow it. About `left_out` of the
/// entries are -1, as for experts on another rank. The same seed gives the same routing on every machine with the same
/// C++ library.
[[nodiscard]] std::vector<std::int64_t> random_top_idx(std::int64_t T, std::int64_t top_k, std::int64_t E, Skew skew,
                                                       double left_out, std::uint64_t seed);

}  // namespace smlora::tuning
