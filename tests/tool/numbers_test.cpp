// Random routings, statistics, and when a check is passed.
#include "smlora_tune/statistics.hpp"
#include "smlora_tune/verification.hpp"
#include "tuning/random_routing.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

namespace smlora::tool {
namespace {

using tuning::random_top_idx;
using tuning::Skew;

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
