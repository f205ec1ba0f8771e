// What counts as right.
#include "workload/comparison.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace smlora::workload {
namespace {

using Values = std::vector<double>;

constexpr double infinite = std::numeric_limits<double>::infinity();

Difference compare_values(const Values& got, const Values& want, std::size_t width, double scale = 0) {
    return compare(got, want, width, scale);
}

TEST(Compare, IsRelativeByNorm) {
    const Difference difference = compare_values({3, 4.1, 0, 0}, {3, 4, 0, 0}, 2);
    EXPECT_NEAR(difference.relative, 0.1 / 5, 1e-12);
    EXPECT_NEAR(difference.worst_row, 0.1 / 5, 1e-12);
    EXPECT_NEAR(compare_values({3, 4.1, 0, 5}, {3, 4, 0, 5}, 2).worst_row, 0.1 / 5, 1e-12);
}

TEST(Compare, OneWrongRowAmongManyShows) {
    const Values want(100000 * 4, 1);
    Values got = want;
    std::fill_n(got.begin() + 400, 4, -1.0);
    const double tolerance = 2 * tolerance_of(DType::bf16);
    const Difference difference = compare(got, want, 4);
    EXPECT_LT(difference.relative, tolerance);
    EXPECT_GT(difference.worst_row, single_factor * tolerance);
}

TEST(Compare, NumbersThatCancelAreJudgedByTheSizeOfTheirTerms) {
    EXPECT_NEAR(compare_values({0.011, 0.02}, {0.01, 0.02}, 1).relative, 1e-3 / std::sqrt(5e-4), 1e-12);
    EXPECT_NEAR(compare_values({0.011, 0.02}, {0.01, 0.02}, 1, 2.0).relative, 1e-3 / std::sqrt(8.0), 1e-12);
    // Rows that must be zero have no size, and numbers larger than the scale their own.
    EXPECT_NEAR(compare_values({0.011, 0}, {0.01, 0}, 1, 2.0).relative, 1e-3 / 2, 1e-12);
    EXPECT_NEAR(compare_values({3.001, 4}, {3, 4}, 1, 2.0).relative, 1e-3 / 5, 1e-12);
}

TEST(Compare, WhatMustBeZeroIsExactlyZero) {
    EXPECT_EQ(compare_values({1, 1, 1e-30, 0}, {1, 1, 0, 0}, 2).relative, infinite);
    EXPECT_EQ(compare_values({1, 1, 0, 0}, {1, 1, 0, 0}, 2).relative, 0);
    EXPECT_EQ(compare_values({0, 0}, {0, 0}, 2).relative, 0);
    EXPECT_EQ(compare_values({}, {}, 2).relative, 0);
}

TEST(Compare, NotANumberIsInfinitelyWrong) {
    EXPECT_EQ(compare_values({1, std::nan("")}, {1, 1}, 2).relative, infinite);
    EXPECT_EQ(compare_values({1, infinite}, {1, 1}, 2).worst_row, infinite);
}

/// Sixteen ones and what is put in the place of one of them.
std::string complaint_about(double value, double should_be = 1) {
    Values want(16, 1);
    Values got = want;
    want[3] = should_be;
    got[3] = value;
    Comparison comparison;
    for (int i = 0; i < 1000; ++i) comparison.add_group(Values(16, 1), Values(16, 1));
    comparison.add_group(got, want);
    comparison.add_group(Values(16, 1), Values(16, 1));
    return comparison.complaint(1e-2);
}

TEST(Comparison, FindsASingleWrongElement) {
    EXPECT_EQ(complaint_about(1.1), "");
    EXPECT_NE(complaint_about(1.3).find("an element is off"), std::string::npos);
    EXPECT_NE(complaint_about(std::nan("")), "");
    EXPECT_NE(complaint_about(-1), "");
    Comparison zeros;
    zeros.add_group(Values{0, 1e-30}, Values{0, 0});
    EXPECT_EQ(zeros.complaint(1), "not zero as it should be: 1 element");
    EXPECT_EQ(norm_error(Values{3, 4.1}, Values{3, 4}), std::sqrt((4.1 - 4) * (4.1 - 4) / 25));
}

TEST(Tolerance, IsThatOfTheTypeUnlessThereIsOnlyAHandful) {
    EXPECT_EQ(tolerance_of(DType::bf16, {.numbers = 64}), 4e-3);
    EXPECT_EQ(tolerance_of(DType::fp16), 1e-3);
    EXPECT_EQ(tolerance_of(DType::fp32), 1e-6);
    EXPECT_EQ(tolerance_of(DType::fp64), 1e-12);
    EXPECT_EQ(tolerance_of(DType::bf16, {.numbers = 63}), 3 * 4e-3);
    EXPECT_EQ(tolerance_of(DType::int64, {.numbers = 1}), 0);
}

TEST(Tolerance, OfLongSumsInFp32GrowsWithTheRootOfTheirLength) {
    EXPECT_EQ(tolerance_of(DType::fp32, {.terms = 1024}), 1e-6);
    EXPECT_EQ(tolerance_of(DType::fp32, {.terms = 4096}), 2e-6);
    EXPECT_EQ(tolerance_of(DType::bf16, {.terms = 4096}), 4e-3);
}

}  // namespace
}  // namespace smlora::workload
