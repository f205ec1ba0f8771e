#include "gpu/driver.hpp"

#include "gpu/device.hpp"
#include "gpu/event.hpp"
#include "gpu/launch.hpp"
#include "gpu/module.hpp"
#include "gpu/pool.hpp"
#include "support/errors.hpp"
#include "unit/gpu/fake_driver.hpp"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace smlora::gpu {
namespace {

using test::expect_parts;
using test::FakeDriver;
using test::message_of;

TEST(Driver, WithoutOneTheErrorSaysWhatWasLookedForAndWhatCame) {
    if (void* handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
        dlclose(handle);
        GTEST_SKIP() << "this machine has a driver";
    }
    for (int attempt = 0; attempt < 2; ++attempt) {
        expect_parts(message_of(ErrorCode::no_device, [] { (void)driver(); }),
                     {"looked for libcuda.so.1", "cannot open shared object file"});
    }
}

TEST(Driver, ALibraryThatLacksAFunctionIsNamedWithTheFunction) {
    expect_parts(message_of(ErrorCode::no_device, [] { (void)load_driver("libm.so.6"); }),
                 {"libm.so.6", "of unknown version", "lacks the function cuInit"});
}

TEST(Driver, TheToolkitsStubHasEveryFunctionAndIsNoDriver) {
    const char* stub = "/usr/local/cuda/lib64/stubs/libcuda.so";
    if (!std::filesystem::exists(stub)) {
        GTEST_SKIP() << "no " << stub;
    }
    const Driver functions = load_driver(stub);
#define SMLORA_EXPECT(function) EXPECT_NE(functions.function, nullptr) << #function;
    SMLORA_CUDA_FUNCTIONS(SMLORA_EXPECT)
#undef SMLORA_EXPECT
    expect_parts(message_of(ErrorCode::no_device, [&] { initialize(functions); }), {"stub", "not a driver"});
}

/// The text of every file of src/ but the list's own, without comments.
std::string sources() {
    std::string text;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(SMLORA_SOURCE_FOLDER)) {
        const std::filesystem::path& file = entry.path();
        if ((file.extension() != ".cpp" && file.extension() != ".hpp") || file.filename() == "driver.hpp") continue;
        std::ifstream lines(file);
        for (std::string line; std::getline(lines, line);) text += line.substr(0, line.find("//")) + "\n";
    }
    return text;
}

TEST(Driver, IsAskedForNoFunctionThatTheLibraryDoesNotCall) {
    const std::string text = sources();
    ASSERT_NE(text.find("cuLaunchKernelEx"), std::string::npos);
    const auto has = [&](const std::string& call) { return text.find(call) != std::string::npos; };
    const auto called = [&](const std::string& function) {
        return has("driver()." + function + "(") || has("driver." + function + "(") ||
               has("SMLORA_CUDA(" + function + ",") || has("SMLORA_CUDA(" + function + ")");
    };
    EXPECT_FALSE(called("cuGraphLaunch"));
#define SMLORA_EXPECT(function) EXPECT_TRUE(called(#function)) << #function << " is in the list of gpu/driver.hpp";
    SMLORA_CUDA_FUNCTIONS(SMLORA_EXPECT)
#undef SMLORA_EXPECT
}

TEST(Driver, WithoutAGpuTheErrorHasWhatCuInitGave) {
    FakeDriver fake;
    Driver functions = driver();
    functions.cuInit = [](unsigned) { return CUDA_ERROR_NO_DEVICE; };
    functions.cuGetErrorName = [](CUresult, const char** name) {
        *name = "CUDA_ERROR_NO_DEVICE";
        return CUDA_SUCCESS;
    };
    expect_parts(message_of(ErrorCode::no_device, [&] { initialize(functions); }), {"CUDA_ERROR_NO_DEVICE", "cuInit"});
}

TEST(Driver, AFailedCallIsNamedWithTheError) {
    FakeDriver fake;
    expect_parts(message_of(ErrorCode::cuda, [] { check(CUDA_ERROR_OUT_OF_MEMORY, "cuMemAlloc"); }),
                 {"cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY"});
    // A result that this driver has no name for.
    expect_parts(message_of(ErrorCode::cuda, [] { check(CUDA_ERROR_UNKNOWN, "cuMemAlloc"); }), {"cuMemAlloc: 999"});
}

TEST(Device, TypicalFactsExistForEverySupportedArchitecture) {
    for (const gpu::Arch& arch : gpu::supported_archs()) {
        const DeviceFacts facts = facts_of(arch);
        EXPECT_EQ(facts.arch, arch);
        EXPECT_FALSE(facts.name.empty());
        EXPECT_GT(facts.l2_bytes, 0U);
        EXPECT_GT(facts.memory_bytes, std::size_t{1} << 30);
        EXPECT_EQ(facts.multiprocessors, arch.multiprocessors);
        EXPECT_EQ(facts.shared_bytes_per_block, arch.shared_bytes_per_block);
    }
}

TEST(Device, AGpuIsKnownByItsName) {
    const DeviceFacts h100 = facts_of("NVIDIA H100 80GB HBM3");
    const DeviceFacts h200 = facts_of(gpu::arch_from_name("sm_90a"));
    EXPECT_EQ(h100.name, "NVIDIA H100 80GB HBM3");
    EXPECT_EQ(h200.name, "NVIDIA H200");
    EXPECT_EQ(h100.arch, h200.arch);
    EXPECT_LT(h100.memory_bytes, h200.memory_bytes);
    // Planned for alike, though the one's memory is slower.
    EXPECT_EQ(h100.tensor_flop_per_second, h200.tensor_flop_per_second);
    EXPECT_EQ(h100.memory_bytes_per_second, h200.memory_bytes_per_second);
    EXPECT_EQ(peak_of(h100).flop_per_second, 790e12);
    EXPECT_EQ(peak_of(h100).bytes_per_second, 3008e9);
    EXPECT_EQ(peak_of(h200).bytes_per_second, h200.memory_bytes_per_second);
    DeviceFacts unknown = h100;
    unknown.name = "NVIDIA H100 PCIe";
    unknown.tensor_flop_per_second = 1e12;
    EXPECT_EQ(peak_of(unknown).flop_per_second, 1e12);
    expect_parts(message_of(ErrorCode::invalid_argument, [] { (void)facts_of("H100"); }),
                 {"gpu: expected one of ", "\"NVIDIA H200\", \"NVIDIA H100 80GB HBM3\"", "got \"H100\""});
}

TEST(Device, FactsAreReadFromTheDriver) {
    FakeDriver fake;
    const DeviceFacts& facts = device_facts(0);
    EXPECT_EQ(facts.name, "Fake H200");
    EXPECT_EQ(facts.arch.name(), "sm_90a");
    EXPECT_EQ(facts.multiprocessors, 131);
    EXPECT_EQ(&facts, &device_facts(0));
}

TEST(Device, AnOrdinalBeyondTheDevicesIsNamed) {
    FakeDriver fake;
    expect_parts(message_of(ErrorCode::no_device, [] { (void)device_facts(3); }), {"device: ", "got 3"});
    expect_parts(message_of(ErrorCode::no_device, [] { (void)device_facts(-1); }), {"got -1"});
}

TEST(CurrentContext, TheCallersOwnIsUsedAndLeftAlone) {
    FakeDriver fake;
    FakeDriver::stack() = {FakeDriver::other_context()};
    PrimaryContexts primaries;
    {
        const CurrentContext context(primaries, 0);
        EXPECT_EQ(context.handle(), FakeDriver::other_context());
        EXPECT_EQ(context.facts().multiprocessors, 131);
    }
    EXPECT_EQ(FakeDriver::stack(), std::vector{FakeDriver::other_context()});
    EXPECT_EQ(fake.primary_references, 0);
}

TEST(CurrentContext, WithoutOneThePrimaryIsRetainedOncePushedAndPopped) {
    FakeDriver fake;
    {
        PrimaryContexts primaries;
        for (int round = 0; round < 2; ++round) {
            const CurrentContext context(primaries, 0);
            EXPECT_EQ(context.handle(), FakeDriver::primary_context());
            EXPECT_EQ(FakeDriver::stack(), std::vector{FakeDriver::primary_context()});
        }
        EXPECT_TRUE(FakeDriver::stack().empty());
        EXPECT_EQ(fake.primary_references, 1);
    }
    EXPECT_EQ(fake.primary_references, 0);
}

TEST(CurrentContext, AFailureLeavesNoContextBehind) {
    FakeDriver fake;
    PrimaryContexts primaries;
    EXPECT_THROW(CurrentContext(primaries, 7), Error);
    EXPECT_TRUE(FakeDriver::stack().empty());
    EXPECT_EQ(fake.primary_references, 0);
}

TEST(Modules, OfThePrimaryContextAreUnloadedBeforeItIsReleased) {
    FakeDriver fake;
    fake.primary_references = 1;
    FakeDriver::stack() = {FakeDriver::primary_context()};
    {
        Modules modules;
        CUfunction function = nullptr;
        ASSERT_EQ(modules.load("\x7f"
                               "ELF",
                               "kernel", function),
                  CUDA_SUCCESS);
        EXPECT_NE(function, nullptr);
        EXPECT_EQ(fake.primary_references, 2);
        FakeDriver::stack().clear();
    }
    EXPECT_TRUE(fake.modules.empty());
    EXPECT_EQ(fake.order, (std::vector<std::string>{"unload", "release"}));
    EXPECT_EQ(fake.primary_references, 1);
    EXPECT_TRUE(FakeDriver::stack().empty());
}

TEST(Modules, OfAnotherContextAreLeftToIt) {
    FakeDriver fake;
    fake.primary_references = 1;
    FakeDriver::stack() = {FakeDriver::other_context()};
    {
        Modules modules;
        CUfunction function = nullptr;
        ASSERT_EQ(modules.load("\x7f"
                               "ELF",
                               "kernel", function),
                  CUDA_SUCCESS);
        EXPECT_EQ(fake.primary_references, 1);
    }
    EXPECT_EQ(fake.modules.size(), 1U);
}

TEST(Modules, APrimaryContextThatNobodyHasIsNotMade) {
    FakeDriver fake;
    FakeDriver::stack() = {FakeDriver::other_context()};
    const Modules modules;
    EXPECT_EQ(fake.order, std::vector<std::string>{});
}

TEST(Modules, AreLoadedInRelaxedCaptureModeWhichIsPutBack) {
    FakeDriver fake;
    FakeDriver::stack() = {FakeDriver::other_context()};
    Modules modules;
    CUfunction function = nullptr;
    ASSERT_EQ(modules.load("\x7f"
                           "ELF",
                           "kernel", function),
              CUDA_SUCCESS);
    EXPECT_FALSE(fake.loaded_outside_relaxed_mode);
    EXPECT_EQ(fake.capture_mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

TEST(Modules, ARefusalIsToldFromOtherFailures) {
    FakeDriver fake;
    FakeDriver::stack() = {FakeDriver::other_context()};
    Modules modules;
    CUfunction function = nullptr;
    fake.on_load = [](std::string_view) { return CUDA_ERROR_INVALID_IMAGE; };
    EXPECT_TRUE(
        is_refusal(modules.load("\x7f"
                                "ELF",
                                "kernel", function)));
    fake.on_load = [](std::string_view) { return CUDA_ERROR_OUT_OF_MEMORY; };
    EXPECT_FALSE(
        is_refusal(modules.load("\x7f"
                                "ELF",
                                "kernel", function)));
    EXPECT_FALSE(is_refusal(CUDA_SUCCESS));
}

struct Args {
    float* out;
    int count;
    int unused;
};

gpu::LoadedKernel loaded_kernel() {
    gpu::LoadedKernel kernel;
    kernel.function = reinterpret_cast<void*>(std::uintptr_t{0x10});
    kernel.threads = 256;
    kernel.dynamic_shared = 4096;
    kernel.args_bytes = sizeof(Args);
    return kernel;
}

TEST(Launch, PassesGridBlockSharedMemoryStreamAndTheStruct) {
    FakeDriver fake;
    fake.args_bytes = sizeof(Args);
    const Args args{reinterpret_cast<float*>(std::uintptr_t{0x1000}), 17, 4};
    const auto stream = reinterpret_cast<CUstream>(std::uintptr_t{0x5});
    launch(loaded_kernel(), 132, 3, stream, args);
    ASSERT_EQ(fake.launches.size(), 1U);
    const FakeDriver::Launch& launched = fake.launches[0];
    EXPECT_EQ(launched.grid_x, 132U);
    EXPECT_EQ(launched.grid_y, 3U);
    EXPECT_EQ(launched.threads, 256U);
    EXPECT_EQ(launched.shared, 4096U);
    EXPECT_EQ(launched.stream, stream);
    EXPECT_EQ(std::memcmp(launched.args.data(), &args, sizeof(args)), 0);
}

TEST(Launch, AStructOfAnotherSizeThanTheKernelsIsRefused) {
    FakeDriver fake;
    expect_parts(message_of(ErrorCode::internal, [] { launch(loaded_kernel(), 1, 1, nullptr, std::int64_t{0}); }),
                 {"16 bytes", "with 8"});
    EXPECT_TRUE(fake.launches.empty());
}

TEST(Launch, AnEmptyGridLaunchesNothing) {
    FakeDriver fake;
    launch(loaded_kernel(), 0, 1, nullptr, Args{});
    launch(loaded_kernel(), 1, 0, nullptr, Args{});
    EXPECT_TRUE(fake.launches.empty());
}

TEST(StreamBuffer, IsGivenBackAtTheEndOfItsScope) {
    FakeDriver fake;
    FakeDriver::stack() = {FakeDriver::primary_context()};
    {
        const StreamBuffer first(nullptr, 1000);
        const StreamBuffer second(nullptr, 10);
        EXPECT_EQ(fake.memory.at(first.address()), 1000U);
        EXPECT_EQ(fake.memory.at(second.address()), 10U);
        EXPECT_EQ(reinterpret_cast<CUdeviceptr>(first.data()), first.address());
        EXPECT_EQ(first.bytes(), 1000U);
    }
    EXPECT_TRUE(fake.memory.empty());
    EXPECT_LE(fake.pools, 1);
    EXPECT_EQ(fake.capture_mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

TEST(StreamBuffer, WhatNobodyUsesGoesBackToTheSystemWhenThePoolIsTrimmed) {
    FakeDriver fake;
    FakeDriver::stack() = {FakeDriver::primary_context()};
    { const StreamBuffer buffer(nullptr, 1000); }
    fake.order.clear();
    trim_pool();
    EXPECT_EQ(fake.order, std::vector<std::string>{"trim"});
}

TEST(StreamBuffer, OfNoBytesAllocatesNothing) {
    FakeDriver fake;
    const StreamBuffer empty(nullptr, 0);
    EXPECT_EQ(empty.data(), nullptr);
}

TEST(StreamBuffer, ThatCannotBeHadSaysHowMuchWasAskedFor) {
    FakeDriver fake;
    FakeDriver::stack() = {FakeDriver::primary_context()};
    fake.allocation_result = CUDA_ERROR_OUT_OF_MEMORY;
    expect_parts(message_of(ErrorCode::cuda, [] { const StreamBuffer buffer(nullptr, 123456789); }),
                 {"123456789 bytes", "CUDA_ERROR_OUT_OF_MEMORY"});
}

TEST(EventPair, GivesTheTimeBetweenItsEventsAndDestroysThem) {
    FakeDriver fake;
    {
        EventPair pair;
        pair.start(nullptr);
        pair.stop(nullptr);
        EXPECT_EQ(pair.milliseconds(), 1.5F);
        EXPECT_EQ(fake.events, 2);
        const EventPair moved = std::move(pair);
        EXPECT_EQ(fake.events, 2);
    }
    EXPECT_EQ(fake.events, 0);
}

}  // namespace
}  // namespace smlora::gpu
