// The random numbers of a test: fresh ones for each run, and the same again where a failure is repeated.
#pragma once

#include "workload/random.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <string_view>

namespace smlora::test {

using namespace workload;

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
    if (const auto* info = ::testing::UnitTest::GetInstance()->current_test_info()) {
        name += std::string("/") + info->test_suite_name() + "/" + info->name();
    }
    return Random(Random(run_seed()).bits(std::hash<std::string>{}(name)));
}

}  // namespace smlora::test
