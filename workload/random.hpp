// Random numbers by counter: element i is a function of the seed and i alone, so that threads can fill a tensor in any
// order and a test of a tensor too large for the host can ask for single elements.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace smlora::workload {

class Random {
 public:
    explicit Random(std::uint64_t seed) : seed_(seed) {}

    [[nodiscard]] std::uint64_t bits(std::uint64_t i) const {  // splitmix64
        std::uint64_t z = seed_ + (i + 1) * 0x9E3779B97F4A7C15U;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
        return z ^ (z >> 31);
    }
    /// Close to a standard normal: four 16-bit uniforms, centred and scaled to variance 1.
    [[nodiscard]] double normal(std::uint64_t i) const {
        const std::uint64_t b = bits(i);
        const auto sum = (b & 0xFFFF) + ((b >> 16) & 0xFFFF) + ((b >> 32) & 0xFFFF) + (b >> 48);
        return (static_cast<double>(sum) - 131070.0) / 37837.227;  // sqrt(4 * 65536^2 / 12)
    }
    /// In [0, 1).
    [[nodiscard]] double uniform(std::uint64_t i) const { return static_cast<double>(bits(i) >> 11) * 0x1p-53; }
    [[nodiscard]] std::int64_t below(std::uint64_t i, std::int64_t n) const {
        return static_cast<std::int64_t>(bits(i) % static_cast<std::uint64_t>(n));
    }

 private:
    std::uint64_t seed_;
};

/// A stream of its own for each purpose: "x", "W", "routing".
using Draws = std::function<Random(std::string_view purpose)>;

/// Independent streams that are the same on every machine.
[[nodiscard]] inline Draws draws_of(std::uint64_t seed) {
    return [seed](std::string_view purpose) {
        // FNV-1a; std::hash may differ between libraries.
        std::uint64_t hash = 14695981039346656037ULL;
        for (const char c : purpose) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
        return Random(Random(seed).bits(hash));
    };
}

}  // namespace smlora::workload
