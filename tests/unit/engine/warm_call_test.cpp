// What a call costs the host once its plan is loaded: launches, and no memory from the heap.
#include "args/gather_rows.h"
#include "args/grouped_product.h"
#include "engine/engine_impl.hpp"
#include "gpu/device.hpp"
#include "plan/plan.hpp"
#include "tuning/bucket.hpp"
#include "unit/cache/fixtures.hpp"
#include "unit/gpu/fake_driver.hpp"

#include <smlora/operations.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

namespace {

thread_local std::size_t allocations = 0;

}  // namespace

// Counted for the whole program. Never inlined: GCC would see free() of what operator new returned and warn.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    ++allocations;
    if (void* const memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace smlora {
namespace {

constexpr std::int64_t T = 64;
constexpr std::size_t calls = 10;

/// An engine on a fake GPU, whose kernels are loaded as far as launches can tell.
class WarmCall : public ::testing::Test {
 protected:
    // Families of products that describe their operands to the driver are left out: the fake one encodes no tensor map.
    WarmCall() { setenv("SMLORA_INSTRUCTIONS", "mma", 1); }
    ~WarmCall() override { unsetenv("SMLORA_INSTRUCTIONS"); }

    void SetUp() override {
        test::FakeDriver::stack().push_back(test::FakeDriver::other_context());
        test::FakeDriver::stack().reserve(8);
        driver.launches.reserve(1000);
        problem.E = 8;
        problem.K = 256;
        problem.N = 512;
        problem.R = 16;
        problem.top_k = 2;
    }

    [[nodiscard]] Engine engine() const {
        EngineOptions options;
        options.cache_root = scratch.path() / "cache";
        options.cache_layers.emplace();
        options.threads = 1;
        options.tuning = TuningPolicy::off;
        return Engine(std::move(options));
    }

    /// Puts the plan of a request into the engine's table.
    void load(const Engine& engine, const plan::Request& request) {
        plan::Plan plan = plan::make_plan(problem, request, gpu::device_facts(0));
        for (auto& step : plan.steps) {
            if (step) step->kernel = &kernel;
        }
        static_cast<void>(
            engine.impl().plans.insert({problem, request, test::FakeDriver::other_context()}, std::move(plan)));
    }

    /// At an address of its own that is never read: nothing runs.
    Tensor tensor(DType dtype, std::initializer_list<std::int64_t> shape) {
        address += std::uintptr_t{1} << 32;
        return {reinterpret_cast<void*>(address), dtype, shape};
    }

    test::FakeDriver driver;
    testing::ScratchFolder scratch;
    Problem problem;
    gpu::LoadedKernel kernel;
    std::uintptr_t address = 0;
};

TEST_F(WarmCall, ForwardAllocatesNothing) {
    const Engine made = engine();
    plan::Forward request;
    request.bucket = tuning::bucket_of(T);
    request.tensor_cores = true;
    request.vector_rows = true;
    load(made, request);
    kernel.args_bytes = sizeof(GroupedProductArgs);

    const std::int64_t M = T * problem.top_k;
    ForwardArgs args;
    args.x = tensor(problem.dtype, {T, problem.K});
    args.W = tensor(problem.dtype, {problem.E, problem.K, problem.N});
    args.A = tensor(problem.dtype, {problem.E, problem.R, problem.K});
    args.B = tensor(problem.dtype, {problem.E, problem.N, problem.R});
    args.routing.sorted_scattered_idxs = tensor(problem.index_dtype, {M});
    args.routing.expert_offsets = tensor(problem.index_dtype, {problem.E});
    args.y = tensor(problem.dtype, {M, problem.N});
    args.xa = tensor(problem.dtype, {M, problem.R});
    std::vector<char> space(forward_workspace(made, problem, T) + 256);
    args.workspace = {reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(space.data()) + 255) / 256 * 256),
                      space.size() - 256};

    forward(made, {}, problem, args);
    const std::size_t launches = driver.launches.size();
    ASSERT_EQ(launches, 2U) << "XA, then the product";
    const std::size_t before = allocations;
    for (std::size_t i = 0; i < calls; ++i) forward(made, {}, problem, args);
    EXPECT_EQ(allocations - before, 0U);
    EXPECT_EQ(driver.launches.size(), launches * (1 + calls));
}

TEST_F(WarmCall, GroupAllocatesNothing) {
    const Engine made = engine();
    load(made, plan::Group{.rows = {problem.K, true}});
    kernel.args_bytes = sizeof(GatherRowsArgs);

    const std::int64_t M = T * problem.top_k;
    GroupArgs args;
    args.x = tensor(problem.dtype, {T, problem.K});
    args.routing.sorted_scattered_idxs = tensor(problem.index_dtype, {M});
    args.routing.expert_offsets = tensor(problem.index_dtype, {problem.E});
    args.out = tensor(problem.dtype, {M, problem.K});

    group(made, {}, problem, args);
    const std::size_t before = allocations;
    for (std::size_t i = 0; i < calls; ++i) group(made, {}, problem, args);
    EXPECT_EQ(allocations - before, 0U);
    EXPECT_EQ(driver.launches.size(), 1 + calls);
}

}  // namespace
}  // namespace smlora
