// Numbers of the host: element types, random operands, statistics, comparison.
#include "smlora_tune/comparison.hpp"
#include "smlora_tune/elements.hpp"
#include "smlora_tune/random_values.hpp"
#include "smlora_tune/statistics.hpp"
#include "smlora_tune/verification.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

namespace smlora::tool {
namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();

double rounded(double value, DType dtype) {
    std::uint64_t element = 0;
    encode(&value, 1, dtype, &element);
    double result = 0;
    decode(&element, 1, dtype, &result);
    return result;
}

TEST(Elements, EverySixteenBitPatternSurvivesDecodingAndEncoding) {
    for (const DType dtype : {DType::bf16, DType::fp16}) {
        for (std::uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
            const auto element = static_cast<std::uint16_t>(bits);
            double value = 0;
            decode(&element, 1, dtype, &value);
            std::uint16_t again = 0;
            encode(&value, 1, dtype, &again);
            if (std::isnan(value)) {
                double number = 0;
                decode(&again, 1, dtype, &number);
                ASSERT_TRUE(std::isnan(number)) << name(dtype) << ' ' << bits;
            } else {
                ASSERT_EQ(again, element) << name(dtype);
            }
            ASSERT_EQ(count_non_finite(&element, 1, dtype), std::isfinite(value) ? 0U : 1U) << name(dtype) << bits;
        }
    }
}

TEST(Elements, TiesRoundToEven) {
    EXPECT_EQ(rounded(1 + 0x1p-8, DType::bf16), 1);
    EXPECT_EQ(rounded(1 + 3 * 0x1p-8, DType::bf16), 1 + 0x1p-6);
    EXPECT_EQ(rounded(1 + 0x1p-8 + 0x1p-15, DType::bf16), 1 + 0x1p-7);
    EXPECT_EQ(rounded(1 + 0x1p-11, DType::fp16), 1);
    EXPECT_EQ(rounded(1 + 3 * 0x1p-11, DType::fp16), 1 + 0x1p-9);
    EXPECT_EQ(rounded(2 - 0x1p-12, DType::fp16), 2);
    EXPECT_EQ(rounded(0x1p-25, DType::fp16), 0);
    EXPECT_EQ(rounded(3 * 0x1p-25, DType::fp16), 0x1p-23);
    EXPECT_EQ(rounded(65519, DType::fp16), 65504);
    EXPECT_EQ(rounded(65520, DType::fp16), infinite);
    EXPECT_EQ(rounded(-65520, DType::fp16), -infinite);
    EXPECT_EQ(rounded(0.1, DType::fp32), static_cast<double>(0.1F));
    EXPECT_EQ(rounded(0.1, DType::fp64), 0.1);
}

TEST(Elements, IntegersOfBothWidths) {
    for (const DType dtype : {DType::int32, DType::int64}) {
        std::int64_t elements[2] = {};
        set_integer(elements, 0, dtype, -1);
        set_integer(elements, 1, dtype, 123456);
        EXPECT_EQ(integer_at(elements, 0, dtype), -1);
        EXPECT_EQ(integer_at(elements, 1, dtype), 123456);
    }
}

TEST(RandomTopIdx, ExpertsOfATokenAreDistinct) {
    for (const Skew skew : {Skew::uniform, Skew::zipf}) {
        for (const std::int64_t E : {8, 9, 64}) {
            const auto top_idx = random_top_idx(500, 8, E, skew, 0, 1);
            for (std::size_t t = 0; t < 500; ++t) {
                const std::set<std::int64_t> experts(top_idx.begin() + static_cast<std::ptrdiff_t>(t * 8),
                                                     top_idx.begin() + static_cast<std::ptrdiff_t>(t * 8 + 8));
                ASSERT_EQ(experts.size(), 8U);
                ASSERT_GE(*experts.begin(), 0);
                ASSERT_LT(*experts.rbegin(), E);
            }
        }
    }
}

TEST(RandomTopIdx, MoreChoicesThanExpertsRepeatThem) {
    EXPECT_EQ(random_top_idx(3, 2, 1, Skew::uniform, 0, 1), std::vector<std::int64_t>(6, 0));
}

std::vector<std::int64_t> sorted_counts(Skew skew) {
    std::vector<std::int64_t> counts(16);
    for (const std::int64_t e : random_top_idx(4000, 2, 16, skew, 0, 3)) ++counts[static_cast<std::size_t>(e)];
    std::sort(counts.rbegin(), counts.rend());
    return counts;
}

TEST(RandomTopIdx, SkewsDiffer) {
    const auto uniform = sorted_counts(Skew::uniform);
    EXPECT_LT(uniform.front(), 600);
    EXPECT_GT(uniform.back(), 400);
    const auto zipf = sorted_counts(Skew::zipf);
    EXPECT_GT(zipf.front(), 1700);
    EXPECT_LT(zipf.back(), 250);
    const auto one = sorted_counts(Skew::one);
    EXPECT_EQ(one.front(), 8000);
}

TEST(RandomTopIdx, LeavesOutTheShareThatIsAskedFor) {
    const auto top_idx = random_top_idx(1000, 8, 64, Skew::uniform, 0.25, 5);
    const auto left_out = std::count(top_idx.begin(), top_idx.end(), -1);
    EXPECT_NEAR(static_cast<double>(left_out), 2000, 200);
    const auto none = random_top_idx(10, 8, 64, Skew::uniform, 1, 5);
    EXPECT_EQ(std::count(none.begin(), none.end(), -1), 80);
}

TEST(RandomTopIdx, IsAFunctionOfItsSeed) {
    EXPECT_EQ(random_top_idx(100, 4, 32, Skew::zipf, 0.1, 7), random_top_idx(100, 4, 32, Skew::zipf, 0.1, 7));
    EXPECT_NE(random_top_idx(100, 4, 32, Skew::zipf, 0.1, 7), random_top_idx(100, 4, 32, Skew::zipf, 0.1, 8));
}

TEST(Statistics, QuantilesInterpolate) {
    EXPECT_EQ(median({3, 1, 2}), 2);
    EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
    EXPECT_EQ(median({}), 0);
    EXPECT_EQ(quantile({5, 1, 9}, 0), 1);
    EXPECT_EQ(quantile({5, 1, 9}, 1), 9);
    EXPECT_EQ(spread({1, 2, 3, 4, 5}), 2.0 / 3);
    EXPECT_EQ(spread({2, 2, 2, 100}), 24.5 / 2);
}

TEST(Comparison, IsRelativeByNorm) {
    const Difference difference = compare({3, 4.1, 0, 0}, {3, 4, 0, 0}, 2);
    EXPECT_NEAR(difference.relative, 0.1 / 5, 1e-12);
    EXPECT_NEAR(difference.worst_row, 0.1 / 5, 1e-12);
    EXPECT_NEAR(compare({3, 4.1, 0, 5}, {3, 4, 0, 5}, 2).worst_row, 0.1 / 5, 1e-12);
}

TEST(Comparison, OneWrongRowAmongManyShows) {
    std::vector<double> want(100000 * 4, 1);
    std::vector<double> got = want;
    std::fill_n(got.begin() + 400, 4, -1.0);
    Check check;
    check.tolerance = tolerance_of(DType::bf16, want.size()) * 2;
    check.difference = compare(got, want, 4);
    EXPECT_LT(check.difference.relative, check.tolerance);
    EXPECT_FALSE(check.ok());
}

TEST(Comparison, NumbersThatCancelAreJudgedByTheSizeOfTheirTerms) {
    EXPECT_NEAR(compare({0.011, 0.02}, {0.01, 0.02}, 1).relative, 1e-3 / std::sqrt(5e-4), 1e-12);
    EXPECT_NEAR(compare({0.011, 0.02}, {0.01, 0.02}, 1, 2.0).relative, 1e-3 / std::sqrt(8.0), 1e-12);
    // Rows that must be zero have no size, and numbers larger than the scale their own.
    EXPECT_NEAR(compare({0.011, 0}, {0.01, 0}, 1, 2.0).relative, 1e-3 / 2, 1e-12);
    EXPECT_NEAR(compare({3.001, 4}, {3, 4}, 1, 2.0).relative, 1e-3 / 5, 1e-12);
}

TEST(Comparison, WhatMustBeZeroIsExactlyZero) {
    EXPECT_EQ(compare({1, 1, 1e-30, 0}, {1, 1, 0, 0}, 2).relative, infinite);
    EXPECT_EQ(compare({1, 1, 0, 0}, {1, 1, 0, 0}, 2).relative, 0);
    EXPECT_EQ(compare({0, 0}, {0, 0}, 2).relative, 0);
    EXPECT_EQ(compare({}, {}, 2).relative, 0);
}

TEST(Comparison, NotANumberIsInfinitelyWrong) {
    EXPECT_EQ(compare({1, std::nan("")}, {1, 1}, 2).relative, infinite);
    EXPECT_EQ(compare({1, infinite}, {1, 1}, 2).worst_row, infinite);
}

TEST(Tolerance, IsThatOfTheTypeUnlessThereIsOnlyAHandful) {
    EXPECT_EQ(tolerance_of(DType::bf16, 64), 4e-3);
    EXPECT_EQ(tolerance_of(DType::fp16, 1000), 1e-3);
    EXPECT_EQ(tolerance_of(DType::fp32, 1000), 1e-5);
    EXPECT_EQ(tolerance_of(DType::fp64, 1000), 1e-12);
    EXPECT_EQ(tolerance_of(DType::bf16, 63), 3 * 4e-3);
    EXPECT_EQ(tolerance_of(DType::int64, 1), 0);
}

TEST(Check, FailsForEachReasonAlone) {
    Check good;
    good.tolerance = 1e-3;
    good.difference = {1e-3, 1e-2};
    EXPECT_TRUE(good.ok());
    Check check = good;
    check.difference.relative = 1.1e-3;
    EXPECT_FALSE(check.ok());
    check = good;
    check.difference.worst_row = 1.1e-2;
    EXPECT_FALSE(check.ok());
    check = good;
    check.repeatable = false;
    EXPECT_FALSE(check.ok());
    check = good;
    check.non_finite = 1;
    EXPECT_FALSE(check.ok());
}

}  // namespace
}  // namespace smlora::tool
