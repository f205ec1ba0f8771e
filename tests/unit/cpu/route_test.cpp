#include "cpu/operations.hpp"
#include "cpu/routed_rows.hpp"
#include "unit/cpu/array.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

namespace smlora::test {
namespace {

struct Routed {
    Array experts;
    Array entries;
    Array offsets;
};

Routed route(const std::vector<std::int64_t>& experts, std::int64_t E, std::int64_t top_k, DType input, DType index,
             int thread_count) {
    const auto M = static_cast<std::int64_t>(experts.size());
    Array top_idx(input, {M / top_k, top_k});
    for (std::int64_t f = 0; f < M; ++f) {
        top_idx.set_integer(experts[static_cast<std::size_t>(f)], f / top_k, f % top_k);
    }
    Problem problem;
    problem.E = E;
    problem.top_k = top_k;
    problem.index_dtype = index;
    Routed routed{Array(index, {M}), Array(index, {M}), Array(index, {E})};
    util::ThreadPool threads(thread_count);
    cpu::route(threads, problem, {top_idx, {routed.experts, routed.entries, routed.offsets}, {}});
    return routed;
}

void expect_stable_sort(std::vector<std::int64_t> experts, std::int64_t E, const Routed& routed) {
    for (std::int64_t& e : experts) {
        if (e < 0 || e >= E) e = E;
    }
    std::vector<std::int64_t> entries(experts.size());
    std::iota(entries.begin(), entries.end(), 0);
    std::stable_sort(entries.begin(), entries.end(), [&](std::int64_t a, std::int64_t b) {
        return experts[static_cast<std::size_t>(a)] < experts[static_cast<std::size_t>(b)];
    });
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const auto position = static_cast<std::int64_t>(i);
        ASSERT_EQ(routed.entries.integer(position), entries[i]);
        ASSERT_EQ(routed.experts.integer(position), experts[static_cast<std::size_t>(entries[i])]);
    }
    for (std::int64_t e = 0; e < E; ++e) {
        ASSERT_EQ(routed.offsets.integer(e),
                  std::count_if(experts.begin(), experts.end(), [e](auto v) { return v <= e; }));
    }
}

std::vector<std::int64_t> random_experts(std::int64_t M, std::int64_t low, std::int64_t high) {
    std::mt19937_64 random(3);
    std::uniform_int_distribution<std::int64_t> expert(low, high);
    std::vector<std::int64_t> experts(static_cast<std::size_t>(M));
    for (std::int64_t& e : experts) e = expert(random);
    return experts;
}

TEST(Route, SortsStablyInEveryIndexType) {
    const std::vector<std::int64_t> experts = random_experts(7 * 64, -1, 12);
    for (DType input : {DType::int32, DType::int64}) {
        for (DType index : {DType::int32, DType::int64}) {
            expect_stable_sort(experts, 13, route(experts, 13, 7, input, index, 2));
        }
    }
}

TEST(Route, LeavesOutEveryValueThatIsNoExpert) {
    const std::vector<std::int64_t> experts{3,
                                            -1,
                                            0,
                                            4,
                                            2,
                                            std::numeric_limits<std::int64_t>::max(),
                                            -7,
                                            1,
                                            1,
                                            std::numeric_limits<std::int64_t>::min(),
                                            (std::int64_t{1} << 32) + 1,
                                            0};
    const Routed routed = route(experts, 4, 3, DType::int64, DType::int32, 1);
    expect_stable_sort(experts, 4, routed);
    EXPECT_EQ(routed.offsets.integer(3), 6);
}

TEST(Route, TakesOneExpertOneTokenAndNone) {
    expect_stable_sort({0, 0, 0}, 1, route({0, 0, 0}, 1, 1, DType::int32, DType::int32, 1));
    expect_stable_sort({5, 1, 5, 0}, 6, route({5, 1, 5, 0}, 6, 4, DType::int32, DType::int32, 1));
    expect_stable_sort({}, 6, route({}, 6, 4, DType::int32, DType::int32, 1));
    expect_stable_sort({-1, -1}, 2, route({-1, -1}, 2, 1, DType::int32, DType::int32, 1));
}

TEST(Route, GivesTheSameOnAnyNumberOfThreads) {
    // More entries than the few chunks of a small call.
    const std::vector<std::int64_t> experts = random_experts(300000, -1, 200);
    const Routed one = route(experts, 128, 4, DType::int32, DType::int32, 1);
    const Routed four = route(experts, 128, 4, DType::int32, DType::int32, 4);
    expect_stable_sort(experts, 128, one);
    EXPECT_EQ(one.experts.bytes(), four.experts.bytes());
    EXPECT_EQ(one.entries.bytes(), four.entries.bytes());
    EXPECT_EQ(one.offsets.bytes(), four.offsets.bytes());
}

std::string complaint(const std::vector<std::int64_t>& entries, const std::vector<std::int64_t>& offsets) {
    Problem problem;
    problem.E = static_cast<std::int64_t>(offsets.size());
    problem.top_k = 2;
    Array entry_array(DType::int32, {static_cast<std::int64_t>(entries.size())});
    Array offset_array(DType::int32, {problem.E});
    for (std::size_t i = 0; i < entries.size(); ++i) entry_array.set_integer(entries[i], static_cast<std::int64_t>(i));
    for (std::size_t i = 0; i < offsets.size(); ++i) offset_array.set_integer(offsets[i], static_cast<std::int64_t>(i));
    try {
        const cpu::RoutedRows rows(problem, {{}, entry_array, offset_array});
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
        return error.what();
    }
    return "";
}

TEST(Routing, IsRefusedWhereItsContentWouldReachOutsideOfTensors) {
    EXPECT_EQ(complaint({1, 0, 3, 2}, {1, 3, 4}), "");
    EXPECT_EQ(complaint({1, 0, 4, 2}, {1, 3, 4}), "routing.sorted_scattered_idxs[2]: expected 0 to 3, got 4");
    EXPECT_EQ(complaint({-1, 0, 3, 2}, {1, 3, 4}), "routing.sorted_scattered_idxs[0]: expected 0 to 3, got -1");
    EXPECT_EQ(complaint({1, 0, 1, 2}, {1, 3, 4}),
              "routing.sorted_scattered_idxs: expected every entry once, got 1 at 0 and 2");
    EXPECT_EQ(complaint({1, 0, 3, 2}, {3, 1, 4}), "routing.expert_offsets[1]: expected 3 to 4, got 1");
    EXPECT_EQ(complaint({1, 0, 3, 2}, {1, 3, 5}), "routing.expert_offsets[2]: expected 3 to 4, got 5");
    EXPECT_EQ(complaint({1, 0, 3, 2}, {-1, 3, 4}), "routing.expert_offsets[0]: expected 0 to 4, got -1");
}

}  // namespace
}  // namespace smlora::test
