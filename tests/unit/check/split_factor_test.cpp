// Scales as the sum of two bf16: codes are decoded to the bits of the fp32 product, rounded once.
#include "args/split_factor.h"

#include <gtest/gtest.h>
#include <bit>
#include <cstdint>

namespace smlora::test {
namespace {

constexpr std::uint32_t mantissas = 1U << 23;

float with_mantissa(std::uint32_t mantissa) { return std::bit_cast<float>(127U << 23 | mantissa); }

TEST(SplitFactor, RoundsToEightBitsAndTiesToEven) {
    EXPECT_EQ(weight::rounded_to_bf16(0), 0);
    EXPECT_EQ(weight::rounded_to_bf16(1 + 0x1p-8), 1);
    EXPECT_EQ(weight::rounded_to_bf16(1 + 0x3p-8), 1 + 0x1p-6);
    EXPECT_EQ(weight::rounded_to_bf16(-(1 + 0x1.01p-8)), -(1 + 0x1p-7));
    EXPECT_EQ(weight::rounded_to_bf16(2 - 0x1p-9), 2);
    EXPECT_EQ(weight::bf16_bits(-1.5), 0xBFC0U);
}

TEST(SplitFactor, EveryScaleOfFp8HasOne) {
    int without = 0;
    for (std::uint32_t m = 0; m < mantissas; ++m)
        without += weight::split_of_e4m3_scale(with_mantissa(m)).found ? 0 : 1;
    EXPECT_EQ(without, 0);
}

TEST(SplitFactor, AllButFewOuterScalesOfNvfp4HaveOne) {
    for (const bool divides : {false, true}) {
        int without = 0;
        for (std::uint32_t m = 0; m < mantissas; ++m) {
            without += weight::split_of_outer_scale(with_mantissa(m), divides).found ? 0 : 1;
        }
        EXPECT_LT(without, static_cast<int>(mantissas / 50000)) << divides;
    }
}

TEST(SplitFactor, ExponentsHaveTheirRange) {
    for (const float scale : {0x1p-80F, -0x1p-80F, 0x1.fcp7F, -0x1.23456p-20F, 0.0F}) {
        EXPECT_TRUE(weight::split_of_e4m3_scale(scale).found) << scale;
    }
    for (const float scale : {0x1.fffffep-81F, 0x1.ffp7F, 0x1p8F, 1e-40F}) {
        EXPECT_FALSE(weight::split_of_e4m3_scale(scale).found) << scale;
    }
    EXPECT_EQ(weight::split_of_e4m3_scale(0.5F).word(2), 0x3F80U);
    EXPECT_EQ(weight::split_of_e4m3_scale(1 + 0x1p-9F).word(1), 0x3F80U | 0x3B00U << 16);
    EXPECT_FALSE(weight::split_of_outer_scale(0, true).found);
    EXPECT_TRUE(weight::split_of_outer_scale(0, false).found);
}

}  // namespace
}  // namespace smlora::test
