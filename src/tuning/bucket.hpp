// Numbers of tokens that share kernels and records.
#pragma once

#include <cstdint>
#include <vector>

namespace smlora::tuning {

/// The power of two nearest to T on a logarithmic scale, as its exponent; 0 for T <= 1.
[[nodiscard]] std::uint8_t bucket_of(std::int64_t T);

/// 2^bucket.
[[nodiscard]] std::int64_t tokens_of(std::uint8_t bucket);

/// Every other bucket, the nearest first; of two that are as near the smaller one.
[[nodiscard]] std::vector<std::uint8_t> neighbours(std::uint8_t bucket);

}  // namespace smlora::tuning
