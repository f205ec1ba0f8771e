// Random numbers by counter: element i is a function of the seed and i alone, so that threads can fill a tensor in any
// order and a test of a tensor too large for the host can ask for single elements.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <string_view>

namespace smlora::test {

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

/// Fresh for each run of the program; SMLORA_TEST_SEED repeats one.
inline std::uint64_t run_seed() {
    static const std::uint64_t seed = [] {
        if (const char* text = std::getenv("SMLORA_TEST_SEED")) return std::uint64_t{std::strtoull(text, nullptr, 10)};
        return std::uint64_t{std::random_device{}()};
    }();
    return seed;
}

/// A stream of its own for each purpose within each test, so that one test can be repeated without the others.
inline Random fresh(std::string_view purpose) {
    std::string name(purpose);
    if (const auto* info = testing::UnitTest::GetInstance()->current_test_info()) {
        name += std::string("/") + info->test_suite_name() + "/" + info->name();
    }
    return Random(Random(run_seed()).bits(std::hash<std::string>{}(name)));
}

}  // namespace smlora::test
