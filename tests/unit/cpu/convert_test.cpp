#include "cpu/convert.hpp"

#include "workload/number.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace smlora::test {
namespace {

using cpu::Bf16;
using cpu::Fp16;

/// To nearest even, by arithmetic alone: `bits` of mantissa with the leading one, exponents from `lowest` of the
/// leading bit on, infinity beyond `largest`.
double round_to_format(double value, int bits, int lowest, double largest) {
    if (value == 0 || !std::isfinite(value)) return value;
    const int unit = std::max(std::ilogb(value), lowest) - bits + 1;
    const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
    return std::fabs(rounded) > largest ? std::copysign(std::numeric_limits<double>::infinity(), value) : rounded;
}

/// The two formats by one name, with what defines them.
struct Bf16Format {
    using Type = Bf16;
    using Truth = workload::Bf16;
    static double nearest(double value) { return round_to_format(value, 8, -126, 0x1.fep127); }
    static constexpr std::uint16_t infinity = 0x7f80;
    static constexpr std::uint16_t quiet = 0x0040;
    static std::uint16_t encode(float value) { return cpu::to_bf16(value).bits; }
};
struct Fp16Format {
    using Type = Fp16;
    using Truth = workload::Fp16;
    static double nearest(double value) { return round_to_format(value, 11, -14, 65504); }
    static constexpr std::uint16_t infinity = 0x7c00;
    static constexpr std::uint16_t quiet = 0x0200;
    static std::uint16_t encode(float value) { return cpu::to_fp16(value).bits; }
};

template <class Format>
class Convert : public testing::Test {
 protected:
    static float decode(std::uint32_t bits) {
        return cpu::to_float(typename Format::Type{static_cast<std::uint16_t>(bits)});
    }
    static bool is_nan(std::uint32_t bits) { return (bits & 0x7fffU) > Format::infinity; }
    /// The rounded value by arithmetic on doubles.
    static float nearest(float value) { return static_cast<float>(Format::nearest(static_cast<double>(value))); }
    static void expect_nearest(float value) {
        const float rounded = decode(Format::encode(value));
        ASSERT_EQ(std::bit_cast<std::uint32_t>(rounded), std::bit_cast<std::uint32_t>(nearest(value)))
            << std::hexfloat << value << " became " << rounded << " instead of " << nearest(value);
        // What the tests take for the truth is the same.
        const double wide = static_cast<double>(value);
        ASSERT_EQ(Format::Truth::decode(Format::Truth::encode(wide)), Format::nearest(wide)) << std::hexfloat << value;
    }
};

using Formats = testing::Types<Bf16Format, Fp16Format>;
TYPED_TEST_SUITE(Convert, Formats);

TYPED_TEST(Convert, EveryValueMeansWhatTheFormatSays) {
    for (std::uint32_t i = 0; i < 65536; ++i) {
        const float value = this->decode(i);
        if (this->is_nan(i)) {
            ASSERT_TRUE(std::isnan(value)) << i;
        } else {
            ASSERT_EQ(static_cast<double>(value), TypeParam::Truth::decode(static_cast<std::uint16_t>(i))) << i;
        }
        ASSERT_EQ(std::signbit(value), i >= 0x8000U) << i;
    }
}

TYPED_TEST(Convert, EveryValueSurvivesTheWayThroughFloat) {
    for (std::uint32_t i = 0; i < 65536; ++i) {
        // A NaN becomes quiet, as in the hardware's conversions.
        ASSERT_EQ(TypeParam::encode(this->decode(i)), this->is_nan(i) ? i | TypeParam::quiet : i);
    }
}

TYPED_TEST(Convert, HalvesGoToEvenAndNeighboursOfHalvesToTheNearest) {
    for (std::uint32_t i = 0; i + 1 < TypeParam::infinity; ++i) {
        const float low = this->decode(i);
        const float high = this->decode(i + 1);
        const float half = static_cast<float>((static_cast<double>(low) + static_cast<double>(high)) / 2);
        for (float sign : {1.0F, -1.0F}) {
            ASSERT_EQ(this->decode(TypeParam::encode(sign * half)), sign * (i % 2 == 0 ? low : high));
            ASSERT_EQ(this->decode(TypeParam::encode(sign * std::nextafter(half, 0.0F))), sign * low);
            ASSERT_EQ(this->decode(TypeParam::encode(sign * std::nextafter(half, high))), sign * high);
        }
    }
}

TYPED_TEST(Convert, AnyFloatGoesToTheNearest) {
    std::mt19937 random(7);
    for (int i = 0; i < 1000000; ++i) {
        const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
        if (!std::isnan(value)) this->expect_nearest(value);
    }
}

TYPED_TEST(Convert, TheEdgesGoToTheNearest) {
    const float largest = this->decode(TypeParam::infinity - 1U);
    const float smallest = this->decode(1);
    const float step = largest - this->decode(TypeParam::infinity - 2U);
    for (float value : {0.0F, -0.0F, largest, smallest, smallest / 2, std::numeric_limits<float>::denorm_min(),
                        std::numeric_limits<float>::min(), std::numeric_limits<float>::max(),
                        std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        this->expect_nearest(value);
    }
    const float overflow = largest + step / 2;
    EXPECT_EQ(TypeParam::encode(overflow), TypeParam::infinity);
    EXPECT_EQ(TypeParam::encode(std::nextafter(overflow, 0.0F)), TypeParam::infinity - 1);
}

TYPED_TEST(Convert, NanStaysNan) {
    std::mt19937 random(8);
    for (int i = 0; i < 100000; ++i) {
        const std::uint32_t bits = 0x7f800000U | (static_cast<std::uint32_t>(random()) & 0x807fffffU);
        if ((bits & 0x7fffffU) == 0) continue;
        const std::uint16_t got = TypeParam::encode(std::bit_cast<float>(bits));
        ASSERT_TRUE(this->is_nan(got)) << bits;
        ASSERT_EQ(got & 0x8000U, (bits >> 16) & 0x8000U) << bits;
    }
}

}  // namespace
}  // namespace smlora::test
