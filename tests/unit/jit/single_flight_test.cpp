#include "jit/single_flight.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <latch>
#include <stdexcept>
#include <thread>
#include <vector>

namespace smlora::jit {
namespace {

using Flights = SingleFlight<int>;

TEST(SingleFlight, OneWorksForAllWhoComeMeanwhile) {
    Flights flights;
    constexpr int others = 4;
    std::latch started(1);
    std::atomic<int> works{0};
    std::vector<std::thread> threads;
    std::atomic<bool> finish{false};
    const auto work = [&] {
        ++works;
        started.count_down();
        while (!finish) {
            std::this_thread::yield();
        }
        return std::make_shared<const int>(42);
    };
    std::vector<Flights::Shared> results(others + 1);
    threads.emplace_back([&] { results[0] = flights.run("key", work); });
    started.wait();
    for (std::size_t i = 1; i <= others; ++i) {
        threads.emplace_back([&, i] { results[i] = flights.run("key", work); });
    }
    // Another key does not wait.
    EXPECT_EQ(*flights.run("other", [] { return std::make_shared<const int>(7); }), 7);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    finish = true;
    for (std::thread& thread : threads) {
        thread.join();
    }
    // A thread that was slow to start may have come after the first flight ended; never two at once.
    EXPECT_GE(works, 1);
    EXPECT_LE(works, others + 1);
    for (const Flights::Shared& result : results) {
        ASSERT_NE(result, nullptr);
        EXPECT_EQ(*result, 42);
    }
}

TEST(SingleFlight, NeverRunsTwoAtOnceForOneKey) {
    Flights flights;
    std::atomic<int> inside{0};
    std::atomic<int> works{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&] {
            for (int round = 0; round < 200; ++round) {
                (void)flights.run("key", [&] {
                    EXPECT_EQ(++inside, 1);
                    ++works;
                    std::this_thread::yield();
                    --inside;
                    return std::make_shared<const int>(1);
                });
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_GE(works, 1);
}

TEST(SingleFlight, AFailureIsForgotten) {
    Flights flights;
    EXPECT_THROW((void)flights.run("key", []() -> Flights::Shared { throw std::runtime_error("no"); }),
                 std::runtime_error);
    EXPECT_EQ(*flights.run("key", [] { return std::make_shared<const int>(3); }), 3);
}

TEST(SingleFlight, WhoWaitsForAFailureGetsIt) {
    Flights flights;
    std::latch started(1);
    std::atomic<bool> fail{false};
    std::thread leader([&] {
        EXPECT_THROW((void)flights.run("key",
                                       [&]() -> Flights::Shared {
                                           started.count_down();
                                           while (!fail) {
                                               std::this_thread::yield();
                                           }
                                           throw std::runtime_error("no");
                                       }),
                     std::runtime_error);
    });
    started.wait();
    std::thread release([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        fail = true;
    });
    bool own = false;
    try {
        (void)flights.run("key", [&] {
            own = true;  // came too late, after the failure was forgotten
            return std::make_shared<const int>(1);
        });
        EXPECT_TRUE(own);
    } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "no");
        EXPECT_FALSE(own);
    }
    leader.join();
    release.join();
}

}  // namespace
}  // namespace smlora::jit
