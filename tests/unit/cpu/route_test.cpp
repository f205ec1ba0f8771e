#include "cpu/operations.hpp"
#include "cpu/routed_rows.hpp"
#include "support/backend.hpp"
#include "workload/array.hpp"
#include "workload/routing.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

namespace smlora::test {
namespace {

Array array_of(DType dtype, const std::vector<std::int64_t>& values, std::int64_t columns) {
    Array array(engine_of(Backend::cpu), dtype, {{static_cast<std::int64_t>(values.size()) / columns, columns}});
    auto* const elements = static_cast<std::byte*>(array.view().data);
    for (std::size_t i = 0; i < values.size(); ++i) {
        // Not by way of doubles, which do not have every int64.
        const auto narrow = static_cast<std::int32_t>(values[i]);
        if (dtype == DType::int64) {
            std::memcpy(elements + i * sizeof values[i], &values[i], sizeof values[i]);
        } else {
            std::memcpy(elements + i * sizeof narrow, &narrow, sizeof narrow);
        }
    }
    return array;
}

struct Routed {
    Array experts;
    Array entries;
    Array offsets;
};

Routed route(const std::vector<std::int64_t>& experts, std::int64_t E, std::int64_t top_k, DType input,
             DType index_type, int thread_count) {
    const Engine& engine = engine_of(Backend::cpu);
    const auto M = static_cast<std::int64_t>(experts.size());
    const Array top_idx = array_of(input, experts, top_k);
    Problem problem;
    problem.E = E;
    problem.top_k = top_k;
    problem.index_dtype = index_type;
    Routed routed{{engine, index_type, {{M}}}, {engine, index_type, {{M}}}, {engine, index_type, {{E}}}};
    util::ThreadPool threads(thread_count);
    cpu::route(threads, problem,
               {top_idx.view(), {routed.experts.view(), routed.entries.view(), routed.offsets.view()}, {}});
    return routed;
}

void expect_stable_sort(const std::vector<std::int64_t>& experts, std::int64_t E, const Routed& routed) {
    const HostRouting expected(experts, E);
    const auto same = [](const Array& array, const std::vector<std::int64_t>& values) {
        for (std::size_t i = 0; i < values.size(); ++i) {
            ASSERT_EQ(array.at(static_cast<std::int64_t>(i)), static_cast<double>(values[i])) << i;
        }
    };
    same(routed.experts, expected.sorted_expert_idxs);
    same(routed.entries, expected.sorted_scattered_idxs);
    same(routed.offsets, expected.expert_offsets);
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
    EXPECT_EQ(routed.offsets.at(3), 6);
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
    EXPECT_TRUE(one.experts.same_bits(four.experts));
    EXPECT_TRUE(one.entries.same_bits(four.entries));
    EXPECT_TRUE(one.offsets.same_bits(four.offsets));
}

/// The column of a matrix with one.
Tensor vector_of(const Array& array) { return {array.view().data, array.dtype(), {array.numel()}}; }

std::string complaint(const std::vector<std::int64_t>& entries, const std::vector<std::int64_t>& offsets) {
    Problem problem;
    problem.E = static_cast<std::int64_t>(offsets.size());
    problem.top_k = 2;
    const Array entry_array = array_of(DType::int32, entries, 1);
    const Array offset_array = array_of(DType::int32, offsets, 1);
    try {
        const cpu::RoutedRows rows(problem, {{}, vector_of(entry_array), vector_of(offset_array)});
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
