// The element types as the tests and smlora-tune verify read and write them.
#include "workload/number.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace smlora::workload {
namespace {

double rounded(double value, DType dtype) {
    return with_codec(dtype, [value](auto codec) { return codec.decode(codec.encode(value)); });
}

template <class Codec>
void expect_every_pattern_survives() {
    for (std::uint32_t i = 0; i <= 0xFFFF; ++i) {
        const auto bits = static_cast<std::uint16_t>(i);
        const double value = Codec::decode(bits);
        ASSERT_EQ(Codec::is_finite(bits), std::isfinite(value)) << i;
        if (std::isnan(value)) {
            ASSERT_TRUE(std::isnan(Codec::decode(Codec::encode(value)))) << i;
        } else {
            ASSERT_EQ(Codec::encode(value), bits);
        }
    }
}

TEST(Number, EverySixteenBitPatternSurvivesDecodingAndEncoding) {
    expect_every_pattern_survives<Bf16>();
    expect_every_pattern_survives<Fp16>();
}

TEST(Number, TiesRoundToEven) {
    EXPECT_EQ(rounded(1 + 0x1p-8, DType::bf16), 1);
    EXPECT_EQ(rounded(1 + 3 * 0x1p-8, DType::bf16), 1 + 0x1p-6);
    EXPECT_EQ(rounded(1 + 0x1p-8 + 0x1p-15, DType::bf16), 1 + 0x1p-7);
    EXPECT_EQ(rounded(1 + 0x1p-11, DType::fp16), 1);
    EXPECT_EQ(rounded(1 + 3 * 0x1p-11, DType::fp16), 1 + 0x1p-9);
    EXPECT_EQ(rounded(2 - 0x1p-12, DType::fp16), 2);
    EXPECT_EQ(rounded(0x1p-25, DType::fp16), 0);
    EXPECT_EQ(rounded(3 * 0x1p-25, DType::fp16), 0x1p-23);
    EXPECT_EQ(rounded(65519, DType::fp16), 65504);
    EXPECT_EQ(rounded(65520, DType::fp16), std::numeric_limits<double>::infinity());
    EXPECT_EQ(rounded(-65520, DType::fp16), -std::numeric_limits<double>::infinity());
    EXPECT_EQ(rounded(0.1, DType::fp32), static_cast<double>(0.1F));
    EXPECT_EQ(rounded(0.1, DType::fp64), 0.1);
}

TEST(Number, AllBitsSetIsNotANumber) {
    EXPECT_FALSE(Bf16::is_finite(0xFFFF));
    EXPECT_FALSE(Fp16::is_finite(0xFFFF));
    EXPECT_FALSE(Plain<float>::is_finite(std::bit_cast<float>(0xFFFFFFFFU)));
    EXPECT_FALSE(Plain<double>::is_finite(std::bit_cast<double>(~std::uint64_t{0})));
}

}  // namespace
}  // namespace smlora::workload
