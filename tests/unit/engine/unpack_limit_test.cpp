// How much of quantised weights is unpacked at once: the option, else the environment, else 256 MiB.
#include "engine/engine_impl.hpp"
#include "support/environment.hpp"
#include "support/errors.hpp"

#include <smlora/engine.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>

namespace smlora {
namespace {

std::uint64_t limit_of(const char* variable, std::optional<std::uint64_t> option = {}) {
    const test::ScopedVariable scoped("SMLORA_UNPACK_LIMIT", variable);
    EngineOptions options;
    options.backend = Backend::cpu;
    options.unpack_limit_bytes = option;
    return Engine(options).impl().unpack_limit;
}

TEST(UnpackLimit, OfTheOptionThenTheEnvironment) {
    constexpr std::uint64_t mebibyte = 1 << 20;
    EXPECT_EQ(limit_of(""), 256 * mebibyte);
    EXPECT_EQ(limit_of("64M"), 64 * mebibyte);
    EXPECT_EQ(limit_of("64M", 5), 5);
    EXPECT_EQ(limit_of("", 0), 0);
}

TEST(UnpackLimit, NonsenseIsRefused) {
    EXPECT_EQ(test::message_of([] { static_cast<void>(limit_of("lots")); }),
              "SMLORA_UNPACK_LIMIT: expected a number of bytes, or one with the suffix K, M or G, got \"lots\"");
}

}  // namespace
}  // namespace smlora
