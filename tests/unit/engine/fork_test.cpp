// An engine in a forked child: inert, and says so.
#include "engine/engine_impl.hpp"

#include <smlora/smlora.hpp>

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

namespace smlora {
namespace {

EngineOptions options() {
    EngineOptions options;
    options.backend = Backend::cpu;
    options.threads = 4;
    return options;
}

void compute(const Engine& engine) {
    std::atomic<std::int64_t> sum{0};
    engine.impl().threads.parallel_for(1000, [&](std::int64_t i) { sum += i; });
    if (sum != 499'500) throw Error(ErrorCode::internal, "the sum is wrong");
}

/// The wait status of a child that runs `body`, which a signal ends if it takes ten seconds.
int status_of(const std::function<bool()>& body) {
    const ::pid_t child = ::fork();
    if (child == 0) {
        ::alarm(10);
        bool good = false;
        try {
            good = body();
        } catch (...) {
        }
        ::_exit(good ? 0 : 1);
    }
    int status = -1;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status;
}

bool is_refused(const std::function<void()>& use) {
    try {
        use();
    } catch (const Error& error) {
        const std::string message = error.what();
        return error.code() == ErrorCode::forked && message.find(std::to_string(::getppid())) != std::string::npos &&
               message.find("make an engine in the child") != std::string::npos;
    }
    return false;
}

class Forked : public testing::Test {
 protected:
    void SetUp() override {
#if defined(__SANITIZE_THREAD__)
        GTEST_SKIP() << "ThreadSanitizer takes no threads after a fork";
#endif
    }
};

TEST_F(Forked, AnEngineOfTheParentIsAnError) {
    const Engine engine(options());
    compute(engine);
    EXPECT_EQ(status_of([&] {
                  return is_refused([&] { static_cast<void>(engine.backend()); }) &&
                         is_refused([&] { static_cast<void>(cache_stats(engine)); }) &&
                         is_refused([&] { Buffer(engine, 64); });
              }),
              0);
    compute(engine);
}

TEST_F(Forked, AnEngineOfTheParentEndsInTheChildWithoutItsThreads) {
    auto engine = std::make_unique<Engine>(options());
    Engine assigned(options());
    compute(*engine);
    compute(assigned);
    EXPECT_EQ(status_of([&] {
                  engine.reset();
                  assigned = Engine(options());
                  compute(assigned);
                  return true;
              }),
              0);
}

TEST_F(Forked, AChildComputesWithAnEngineOfItsOwnAlsoWhileTheParentComputes) {
    const Engine engine(options());
    std::atomic<bool> stop{false};
    std::thread busy([&] {
        while (!stop) compute(engine);
    });
    for (int i = 0; i < 30; ++i) {
        EXPECT_EQ(status_of([&] {
                      if (!is_refused([&] { compute(engine); })) return false;
                      const Engine own(options());
                      compute(own);
                      // And its child in turn.
                      return status_of([&] { return is_refused([&] { compute(own); }); }) == 0;
                  }),
                  0);
    }
    stop = true;
    busy.join();
}

}  // namespace
}  // namespace smlora
