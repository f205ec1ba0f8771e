#include "util/environment.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <limits>

namespace smlora::util {
namespace {

TEST(Environment, EmptyVariablesCountAsUnset) {
    ::unsetenv("SMLORA_TEST_VARIABLE");
    EXPECT_EQ(environment("SMLORA_TEST_VARIABLE"), std::nullopt);
    ::setenv("SMLORA_TEST_VARIABLE", "", 1);
    EXPECT_EQ(environment("SMLORA_TEST_VARIABLE"), std::nullopt);
    ::setenv("SMLORA_TEST_VARIABLE", " value", 1);
    EXPECT_EQ(environment("SMLORA_TEST_VARIABLE"), " value");
    ::unsetenv("SMLORA_TEST_VARIABLE");
}

TEST(Environment, SizesAreNumbersWithSuffixes) {
    EXPECT_EQ(parse_size("0"), 0u);
    EXPECT_EQ(parse_size("1234"), 1234u);
    EXPECT_EQ(parse_size("4K"), 4096u);
    EXPECT_EQ(parse_size("4k"), 4096u);
    EXPECT_EQ(parse_size("3M"), 3u * 1024 * 1024);
    EXPECT_EQ(parse_size("2G"), std::uint64_t{2} << 30);
    EXPECT_EQ(parse_size("0100g"), std::uint64_t{100} << 30);
}

TEST(Environment, LargestSizesFitAndLargerOnesAreRefused) {
    EXPECT_EQ(parse_size("18446744073709551615"), std::numeric_limits<std::uint64_t>::max());
    EXPECT_EQ(parse_size("18446744073709551616"), std::nullopt);
    EXPECT_EQ(parse_size("18014398509481983K"), std::uint64_t{18014398509481983} << 10);
    EXPECT_EQ(parse_size("18014398509481984K"), std::nullopt);
    EXPECT_EQ(parse_size("17179869183G"), std::uint64_t{17179869183} << 30);
    EXPECT_EQ(parse_size("17179869184G"), std::nullopt);
}

TEST(Environment, AnythingElseIsNoSize) {
    for (const char* text :
         {"", " ", "K", "-1", "+1", "1.5G", "1 G", " 1", "1 ", "1GB", "1GiB", "1T", "0x10", "ten", "1e9", "1K1"}) {
        EXPECT_EQ(parse_size(text), std::nullopt) << '"' << text << '"';
    }
}

}  // namespace
}  // namespace smlora::util
