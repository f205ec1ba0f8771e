#include "util/thread_pool.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <set>
#include <stdexcept>
#include <string>

namespace smlora::util {
namespace {

TEST(AvailableCores, CountsTheAffinityMask) {
    cpu_set_t before;
    ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    EXPECT_EQ(available_cores(), CPU_COUNT(&before));

    cpu_set_t one;
    CPU_ZERO(&one);
    for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
        if (CPU_ISSET(core, &before)) {
            CPU_SET(core, &one);
            break;
        }
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(available_cores(), 1);
    ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(ThreadPool, ZeroThreadsMeansOneForEachCore) {
    EXPECT_EQ(ThreadPool(0).threads(), available_cores());
    EXPECT_EQ(ThreadPool(-1).threads(), available_cores());
    EXPECT_EQ(ThreadPool(3).threads(), 3);
}

class EveryIndex : public ::testing::TestWithParam<std::pair<int, std::int64_t>> {};

TEST_P(EveryIndex, IsVisitedExactlyOnce) {
    const auto [threads, count] = GetParam();
    ThreadPool pool(threads);
    std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
    pool.parallel_for(count, [&](std::int64_t i) { ++visits[static_cast<std::size_t>(i)]; });
    for (const auto& visit : visits) ASSERT_EQ(visit, 1);
}

INSTANTIATE_TEST_SUITE_P(ThreadPool, EveryIndex,
                         ::testing::Values(std::pair{1, 100}, std::pair{2, 1}, std::pair{2, 2}, std::pair{4, 3},
                                           std::pair{4, 1000}, std::pair{7, 100000}));

TEST(ThreadPool, NoIndexMeansNoCall) {
    ThreadPool pool(4);
    pool.parallel_for(0, [](std::int64_t) { FAIL(); });
    pool.parallel_for(-5, [](std::int64_t) { FAIL(); });
}

TEST(ThreadPool, ThreadsWorkAtOnce) {
    ThreadPool pool(3);
    std::atomic<int> inside{0};
    // Each of the three bodies waits for the other two: it ends only if all three run at the same time.
    pool.parallel_for(3, [&](std::int64_t) {
        ++inside;
        while (inside < 3) std::this_thread::yield();
    });
    EXPECT_EQ(inside, 3);
}

TEST(ThreadPool, WritesOfBodiesAreSeenByTheCaller) {
    ThreadPool pool(4);
    for (int round = 0; round < 200; ++round) {
        std::vector<int> values(64, -1);
        pool.parallel_for(64, [&](std::int64_t i) { values[static_cast<std::size_t>(i)] = round; });
        for (const int value : values) ASSERT_EQ(value, round);
    }
}

TEST(ThreadPool, LoopsNest) {
    ThreadPool pool(3);
    std::atomic<int> calls{0};
    pool.parallel_for(8, [&](std::int64_t) {
        pool.parallel_for(8, [&](std::int64_t) { pool.parallel_for(4, [&](std::int64_t) { ++calls; }); });
    });
    EXPECT_EQ(calls, 8 * 8 * 4);
}

TEST(ThreadPool, CallersShareOnePool) {
    ThreadPool pool(3);
    std::vector<std::int64_t> sums(6, 0);
    std::vector<std::thread> callers;
    for (std::int64_t& sum : sums) {
        callers.emplace_back([&pool, &sum] {
            for (int round = 0; round < 50; ++round) {
                std::atomic<std::int64_t> total{0};
                pool.parallel_for(100, [&](std::int64_t i) { total += i; });
                sum += total;
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    for (const std::int64_t sum : sums) EXPECT_EQ(sum, 50 * 4950);
}

TEST(ThreadPool, ExceptionReachesTheCallerAndSkipsTheRest) {
    ThreadPool pool(4);
    for (int round = 0; round < 50; ++round) {
        std::atomic<std::int64_t> calls{0};
        std::atomic<int> running{0};
        try {
            pool.parallel_for(1'000'000, [&](std::int64_t i) {
                ++running;
                ++calls;
                --running;
                if (i == 3) throw std::runtime_error("index 3");
            });
            FAIL() << "nothing was thrown";
        } catch (const std::runtime_error& error) {
            EXPECT_EQ(std::string(error.what()), "index 3");
        }
        EXPECT_EQ(running, 0);
        EXPECT_LT(calls, 1'000'000);
    }
    std::atomic<int> calls{0};
    pool.parallel_for(10, [&](std::int64_t) { ++calls; });
    EXPECT_EQ(calls, 10);
}

TEST(ThreadPool, ExceptionOfEveryBodyIsReportedOnce) {
    ThreadPool pool(4);
    EXPECT_THROW(pool.parallel_for(100, [](std::int64_t) { throw std::logic_error("each"); }), std::logic_error);
    ThreadPool single(1);
    EXPECT_THROW(single.parallel_for(2, [](std::int64_t) { throw std::logic_error("each"); }), std::logic_error);
}

TEST(ThreadPool, ExceptionOfANestedLoopPassesThroughTheOuterOne) {
    ThreadPool pool(3);
    EXPECT_THROW(
        pool.parallel_for(
            4, [&](std::int64_t) { pool.parallel_for(4, [](std::int64_t) { throw std::runtime_error("inner"); }); }),
        std::runtime_error);
}

TEST(ThreadPool, UnusedPoolsStartAndStop) {
    for (int i = 0; i < 100; ++i) ThreadPool pool(8);
}

TEST(ThreadPool, ShortLivedPoolsJoinTheirThreads) {
    for (int i = 0; i < 100; ++i) {
        ThreadPool pool(4);
        std::atomic<int> calls{0};
        pool.parallel_for(4, [&](std::int64_t) { ++calls; });
        ASSERT_EQ(calls, 4);
    }
}

}  // namespace
}  // namespace smlora::util
