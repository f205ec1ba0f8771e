#include "tuning/bucket.hpp"

#include <bit>

namespace smlora::tuning {
namespace {

// 2^31 - 1 is the largest extent of a problem that runs.
constexpr int last_bucket = 31;

}  // namespace

std::uint8_t bucket_of(std::int64_t T) {
    if (T <= 1) return 0;
    // Up from 2^b sqrt(2).
    const auto floor = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(T))) - 1;
    const auto low = static_cast<double>(std::int64_t{1} << floor);
    return static_cast<std::uint8_t>(static_cast<double>(T) > low * 1.4142135623730951 ? floor + 1 : floor);
}

std::int64_t tokens_of(std::uint8_t bucket) { return std::int64_t{1} << bucket; }

std::vector<std::uint8_t> neighbours(std::uint8_t bucket) {
    std::vector<std::uint8_t> found;
    for (int distance = 1; distance <= last_bucket; ++distance) {
        for (const int near : {bucket - distance, bucket + distance}) {
            if (near >= 0 && near <= last_bucket) found.push_back(static_cast<std::uint8_t>(near));
        }
    }
    return found;
}

}  // namespace smlora::tuning
