// From specialisations to loaded kernels, with NVRTC and a cache on disk, and a driver without a GPU.
#include "jit/kernel_library.hpp"

#include "jit/kernel_store.hpp"
#include "unit/gpu/fake_driver.hpp"
#include "util/thread_pool.hpp"
#include "with_cache.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

namespace smlora::jit {
namespace {

using namespace test;

class Get : public WithCache {
 protected:
    void SetUp() override {
        WithCache::SetUp();
        FakeDriver::stack() = {FakeDriver::primary_context()};
        driver.primary_references = 1;
        cache = open_cache();
        library.emplace(*cache, log);
    }
    void TearDown() override { FakeDriver::stack().clear(); }

    FakeDriver driver;
    std::unique_ptr<cache::Cache> cache;
    std::optional<KernelLibrary> library;
};

TEST_F(Get, LoadsOnceAndGivesTheSameKernelAgain) {
    const gpu::LoadedKernel& first = library->get(sample_spec(), hopper);
    EXPECT_NE(first.function, nullptr);
    EXPECT_EQ(first.threads, 64U);
    EXPECT_EQ(first.args_bytes, 24U);
    EXPECT_EQ(first.blocks_per_multiprocessor, 2);
    EXPECT_EQ(&library->get(sample_spec(), hopper), &first);
    EXPECT_EQ(&library->get(sample_spec(), hopper, true), &first);
    EXPECT_EQ(driver.modules_loaded, 1);
    EXPECT_EQ(library->counters().memory_hits, 2U);
    EXPECT_EQ(library->counters().compiles, 1U);
    EXPECT_TRUE(driver.attributes.empty());
}

TEST_F(Get, EveryConstantMakesAnotherKernel) {
    std::set<const gpu::LoadedKernel*> kernels;
    KernelSpec spec = sample_spec();
    kernels.insert(&library->get(spec, hopper));
    spec.constants[0].integer = 32;
    kernels.insert(&library->get(spec, hopper));
    spec.threads = 96;
    kernels.insert(&library->get(spec, hopper));
    spec.dynamic_shared = 100;
    kernels.insert(&library->get(spec, hopper));
    spec.min_blocks = 2;
    kernels.insert(&library->get(spec, hopper));
    EXPECT_EQ(kernels.size(), 5U);
    EXPECT_EQ(driver.modules_loaded, 5);
}

TEST_F(Get, DynamicSharedMemoryIsAskedFor) {
    KernelSpec spec = sample_spec();
    spec.dynamic_shared = 200 * 1024;
    EXPECT_EQ(library->get(spec, hopper).dynamic_shared, 200U * 1024);
    EXPECT_EQ(driver.attributes, (std::vector<std::pair<CUfunction_attribute, int>>{
                                     {CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 200 * 1024},
                                     {CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100}}));
}

TEST_F(Get, MoreSharedMemoryThanTheGpuHasIsUnsupportedAndLeavesNoModule) {
    KernelSpec spec = sample_spec();
    spec.dynamic_shared = 228 * 1024;
    for (int attempt = 0; attempt < 2; ++attempt) {
        expect_parts(message_of(ErrorCode::unsupported, [&] { (void)library->get(spec, hopper); }),
                     {"scale ROWS=64", "233472 bytes"});
        EXPECT_TRUE(driver.modules.empty());
    }
    driver.blocks_per_multiprocessor = 0;
    expect_parts(message_of(ErrorCode::unsupported, [&] { (void)library->get(sample_spec(), hopper); }),
                 {"no block of 64 threads"});
    EXPECT_TRUE(driver.modules.empty());
    driver.blocks_per_multiprocessor = 1;
    EXPECT_EQ(library->get(sample_spec(), hopper).blocks_per_multiprocessor, 1);
}

TEST_F(Get, DuringACaptureAKernelThatIsNotLoadedIsNotReady) {
    (void)library->ensure_cached(sample_spec(), hopper);
    expect_parts(message_of(ErrorCode::not_ready, [&] { (void)library->get(sample_spec(), hopper, true); }),
                 {"scale ROWS=64", "before the capture"});
    EXPECT_EQ(driver.modules_loaded, 0);
}

class GetAll : public Get {
 protected:
    /// Three kernels.
    GetAll() {
        for (int factor = 1; factor <= 3; ++factor) {
            specs.push_back(sample_spec());
            specs.back().constants[1].integer = factor;
        }
    }
    [[nodiscard]] std::vector<const KernelSpec*> wanted() const { return {&specs[0], &specs[1], &specs[2]}; }

    std::vector<KernelSpec> specs;
    util::ThreadPool threads{3};
};

TEST_F(GetAll, CompilesAtOnceAndLoadsInTheContextOfTheCaller) {
    // Each compile goes on when three have begun: one after the other, they would wait for ever.
    std::mutex mutex;
    std::condition_variable all_began;
    std::optional<int> began;
    bool together = true;
    NvrtcAccess access = NvrtcAccess::installed();
    access.open = [&]() -> const Nvrtc& {
        std::unique_lock lock(mutex);
        if (began) {
            ++*began;
            all_began.notify_all();
            together = all_began.wait_for(lock, std::chrono::seconds(60), [&] { return *began >= 3; }) && together;
        }
        return Nvrtc::instance();
    };
    library.emplace(*cache, log, access);
    KernelSpec other = sample_spec();
    other.constants[1].integer = 4;
    (void)library->get(other, hopper);  // asks for the compiler's version, too
    began = 0;
    const auto kernels = library->get_all(wanted(), hopper, threads);
    EXPECT_TRUE(together);
    EXPECT_EQ(library->counters().compiles, 4U);
    EXPECT_EQ(driver.modules_loaded, 4);
    for (std::size_t i = 0; i < specs.size(); ++i) {
        EXPECT_EQ(kernels[i], &library->get(specs[i], hopper)) << "in the order that was asked";
    }
    EXPECT_EQ(library->get_all(wanted(), hopper, threads, true), kernels);
    EXPECT_EQ(driver.modules_loaded, 4);
}

TEST_F(GetAll, FindsInTheCacheWhatIsThere) {
    (void)library->get_all(wanted(), hopper, threads);
    const auto other_cache = open_cache();
    KernelLibrary other(*other_cache, log);
    EXPECT_EQ(other.get_all(wanted(), hopper, threads).size(), 3U);
    EXPECT_EQ(other.counters().compiles, 0U);
    EXPECT_EQ(other.counters().disk_hits, 3U);
}

TEST_F(GetAll, AKernelThatIsAskedForTwiceIsCompiledOnce) {
    const auto kernels = library->get_all({&specs[0], &specs[0], &specs[1]}, hopper, threads);
    EXPECT_EQ(kernels[0], kernels[1]);
    EXPECT_EQ(library->counters().compiles, 2U);
}

TEST_F(GetAll, AnErrorOfOneIsThrownWithItsLogAndTheNextCallTriesAnew) {
    specs[1].constants[2].type = "no_such_type";
    for (int attempt = 0; attempt < 2; ++attempt) {
        expect_parts(message_of(ErrorCode::compile, [&] { (void)library->get_all(wanted(), hopper, threads); }),
                     {"scale ROWS=64 FACTOR=2", "log:", "no_such_type"});
        EXPECT_EQ(driver.modules_loaded, 0);
    }
    specs[1] = specs[0];
    EXPECT_EQ(library->get_all(wanted(), hopper, threads).size(), 3U);
}

TEST_F(GetAll, DuringACaptureNothingIsCompiled) {
    (void)library->get(specs[0], hopper);
    expect_parts(message_of(ErrorCode::not_ready, [&] { (void)library->get_all(wanted(), hopper, threads, true); }),
                 {"scale ROWS=64 FACTOR=2", "before the capture"});
    EXPECT_EQ(library->counters().compiles, 1U);
    EXPECT_EQ(driver.modules_loaded, 1);
}

TEST_F(Get, EachContextGetsItsOwn) {
    const gpu::LoadedKernel& first = library->get(sample_spec(), hopper);
    FakeDriver::stack().push_back(FakeDriver::other_context());
    EXPECT_NE(&library->get(sample_spec(), hopper), &first);
    FakeDriver::stack().pop_back();
    EXPECT_EQ(&library->get(sample_spec(), hopper), &first);
    EXPECT_EQ(driver.modules_loaded, 2);
    EXPECT_EQ(library->counters().compiles, 1U);
}

TEST_F(Get, WithoutAContextSaysSo) {
    FakeDriver::stack().clear();
    expect_parts(message_of(ErrorCode::cuda, [&] { (void)library->get(sample_spec(), hopper); }),
                 {"no current CUDA context"});
}

TEST_F(Get, ManyThreadsLoadItOnce) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&] {
            FakeDriver::stack() = {FakeDriver::primary_context()};
            for (int round = 0; round < 100; ++round) {
                EXPECT_EQ(library->get(sample_spec(), hopper).threads, 64U);
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(driver.modules_loaded, 1);
    EXPECT_EQ(library->counters().compiles, 1U);
}

TEST_F(Get, ModulesGoWithTheLibrary) {
    (void)library->get(sample_spec(), hopper);
    EXPECT_EQ(driver.primary_references, 2);
    FakeDriver::stack().clear();
    library.reset();
    EXPECT_TRUE(driver.modules.empty());
    EXPECT_EQ(driver.primary_references, 1);
}

TEST_F(Get, AnEntryThatTheDriverRefusesIsCompiledAnewOnce) {
    (void)library->ensure_cached(sample_spec(), hopper);
    int refusals = 0;
    driver.on_load = [&](std::string_view) { return refusals++ == 0 ? CUDA_ERROR_INVALID_IMAGE : CUDA_SUCCESS; };
    EXPECT_NE(library->get(sample_spec(), hopper).function, nullptr);
    EXPECT_EQ(library->counters().rejected, 1U);
    EXPECT_EQ(library->counters().compiles, 2U);
    EXPECT_EQ(refusals, 2);
    ASSERT_EQ(warnings.size(), 1U);
    expect_parts(warnings[0], {"scale ROWS=64", "refused by the driver"});
    // What was put in its place is found by the next process.
    const auto next_cache = open_cache();
    KernelLibrary next(*next_cache, log);
    EXPECT_TRUE(next.ensure_cached(sample_spec(), hopper).found_in_cache);
}

TEST_F(Get, AKernelThatTheDriverRefusesFreshIsAnErrorAndTriedAnewLater) {
    driver.on_load = [](std::string_view) { return CUDA_ERROR_INVALID_IMAGE; };
    expect_parts(message_of(ErrorCode::cuda, [&] { (void)library->get(sample_spec(), hopper); }),
                 {"scale ROWS=64", "nvrtc ", "a driver for CUDA 13.0", "CUDA_ERROR_INVALID_IMAGE"});
    EXPECT_EQ(library->counters().compiles, 1U);
    driver.on_load = [](std::string_view) { return CUDA_SUCCESS; };
    EXPECT_NE(library->get(sample_spec(), hopper).function, nullptr);
}

TEST_F(Get, AFailureOtherThanARefusalDoesNotCompileAnew) {
    (void)library->ensure_cached(sample_spec(), hopper);
    driver.on_load = [](std::string_view) { return CUDA_ERROR_OUT_OF_MEMORY; };
    expect_parts(message_of(ErrorCode::cuda, [&] { (void)library->get(sample_spec(), hopper); }),
                 {"CUDA_ERROR_OUT_OF_MEMORY"});
    EXPECT_EQ(library->counters().compiles, 1U);
    EXPECT_EQ(library->counters().rejected, 0U);
}

}  // namespace
}  // namespace smlora::jit
