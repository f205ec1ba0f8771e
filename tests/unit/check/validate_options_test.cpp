// What an engine refuses before it is made, and what a tensor refuses.
#include "support/errors.hpp"

#include <smlora/smlora.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <new>
#include <string>
#include <utility>

namespace smlora {
namespace {

using test::message_of;

EngineOptions cpu_options() {
    EngineOptions options;
    options.backend = Backend::cpu;
    options.threads = 1;
    return options;
}

TEST(EngineOptions, OutOfRangeAreNamed) {
    EngineOptions options = cpu_options();
    options.backend = static_cast<Backend>(7);
    EXPECT_EQ(message_of([&] { const Engine engine(options); }), "backend: expected cuda or cpu, got the value 7");
    options = cpu_options();
    options.threads = -4;
    EXPECT_EQ(message_of([&] { const Engine engine(options); }), "threads: expected 0 or more, got -4");
    options = cpu_options();
    options.device = -1;
    EXPECT_EQ(message_of([&] { const Engine engine(options); }), "device: expected 0 or more, got -1");
    options = cpu_options();
    options.tuning = static_cast<TuningPolicy>(9);
    EXPECT_EQ(message_of([&] { const Engine engine(options); }), "tuning policy: expected 0 to 2, got 9");
}

TEST(Engine, ThatWasMovedFromRefusesEveryUse) {
    Engine engine(cpu_options());
    Engine moved = std::move(engine);
    EXPECT_EQ(moved.backend(), Backend::cpu);
    // NOLINTBEGIN(bugprone-use-after-move)
    const char* const message = "engine: expected one that was not moved from";
    EXPECT_EQ(message_of([&] { static_cast<void>(engine.backend()); }), message);
    EXPECT_EQ(message_of([&] { route(engine, {}, {}, {}); }), message);
    EXPECT_EQ(message_of([&] { static_cast<void>(forward_workspace(engine, {.E = 1, .K = 1, .N = 1}, 1)); }), message);
    EXPECT_EQ(message_of([&] { const Buffer buffer(engine, 16); }), message);
    EXPECT_EQ(message_of([&] { synchronize(engine, {}); }), message);
    EXPECT_EQ(message_of([&] { static_cast<void>(cache_layers(engine)); }), message);
    EXPECT_EQ(message_of([&] { static_cast<void>(prewarm(engine, {})); }), message);
    engine = std::move(moved);
    EXPECT_EQ(engine.backend(), Backend::cpu);
    // NOLINTEND(bugprone-use-after-move)
}

TEST(Buffer, CopiesFromAndToMemoryThatIsThere) {
    const Engine engine(cpu_options());
    Buffer buffer(engine, 16);
    EXPECT_EQ(message_of([&] { buffer.copy_from_host(nullptr, 8); }),
              "source: expected memory for 8 bytes, got a null pointer");
    EXPECT_EQ(message_of([&] { buffer.copy_to_host(nullptr, 8); }),
              "target: expected memory for 8 bytes, got a null pointer");
    EXPECT_NO_THROW(buffer.copy_from_host(nullptr, 0));
}

TEST(Buffer, OfMoreThanThereIsIsRefused) {
    const Engine engine(cpu_options());
    const std::size_t all = std::numeric_limits<std::size_t>::max();
    for (const std::size_t bytes : {all, all - 255, all / 2 + 1}) {
        EXPECT_THROW(const Buffer buffer(engine, bytes), std::bad_alloc) << bytes;
    }
}

TEST(Tensor, HasAtMostFourExtentsAndAStrideForEach) {
    EXPECT_EQ(Tensor(nullptr, DType::bf16, {2, 3, 4, 5}).strides[0], 60);
    EXPECT_EQ(message_of([] {
                  const Tensor tensor(nullptr, DType::bf16, {1, 2, 3, 4, 5});
              }),
              "shape: expected at most 4 extents, got 5");
    EXPECT_EQ(message_of([] {
                  const Tensor tensor(nullptr, DType::bf16, {2, 3}, {3});
              }),
              "strides: expected one for each of 2 extents, got 1");
    EXPECT_EQ(message_of([] {
                  const Tensor tensor(nullptr, DType::bf16, {2, 3}, {3, 1, 1});
              }),
              "strides: expected one for each of 2 extents, got 3");
}

TEST(LogLevel, IsInTheOrderOfSeverity) {
    EXPECT_LT(LogLevel::debug, LogLevel::info);
    EXPECT_LT(LogLevel::info, LogLevel::notice);
    EXPECT_LT(LogLevel::notice, LogLevel::warning);
}

}  // namespace
}  // namespace smlora
