// Barriers of a block, and deadlocks.
#include "test/gpu.hpp"

namespace smlora::emulator {
namespace {

TEST(NamedBarrier, HandsABufferBackAndForth) {
    const TestKernel kernel(R"(
#include "ptx/synchronise.cuh"
extern "C" __global__ void test(int* out) {
    __shared__ int buffer[32];
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; ++i) {
        if (threadIdx.x < 32) {
            if (i > 0) smlora::ptx::named_barrier_sync(2, 64);
            buffer[lane] = i * 100 + lane;
            smlora::ptx::named_barrier_arrive(1, 64);
        } else {
            smlora::ptx::named_barrier_sync(1, 64);
            out[i * 32 + lane] = buffer[31 - lane];
            if (i < 3) smlora::ptx::named_barrier_arrive(2, 64);
        }
    }
}
)");
    const DeviceArray<int> out(128);
    for (int repeat = 0; repeat < 20; ++repeat) {
        kernel.run({1, 64}, out.data());
        const std::vector<int> v = out.values();
        for (int i = 0; i < 128; ++i) ASSERT_EQ(v[static_cast<std::size_t>(i)], i / 32 * 100 + 31 - i % 32);
    }
}

TEST(NamedBarrier, CountsThatDifferAreAnError) {
    const TestKernel kernel(R"(
#include "ptx/synchronise.cuh"
extern "C" __global__ void test() { smlora::ptx::named_barrier_sync(1, threadIdx.x < 32 ? 64 : 96); }
)");
    expect_report(kernel.launch({1, 96}), CUDA_ERROR_LAUNCH_FAILED, {"barrier 1 at kernel.cu:3", "96", "64"});
}

TEST(Deadlock, IsReportedWithWhoWaitsWhere) {
    const TestKernel kernel(R"(
#include "ptx/synchronise.cuh"
extern "C" __global__ void test() {
    if (threadIdx.x < 64) {
        smlora::ptx::named_barrier_sync(3, 96);
    } else {
        __syncthreads();
    }
}
)");
    expect_report(
        kernel.launch({1, 128}), CUDA_ERROR_LAUNCH_TIMEOUT,
        {"deadlock", "bar.sync 3, 96 at kernel.cu:5 (threads 0-63)", "bar.sync 0 at kernel.cu:7 (threads 64-127)"});
    // The next launch is not disturbed.
    const TestKernel sound("extern \"C\" __global__ void test() { __syncthreads(); }");
    sound.run({2, 128});
}

TEST(Race, WithoutABarrierIsFound) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(int* out, int with_barrier) {
    __shared__ int buffer[64];
    buffer[threadIdx.x] = threadIdx.x;
    if (with_barrier) __syncthreads();
    out[threadIdx.x] = buffer[63 - threadIdx.x];
}
)");
    std::vector<int> expected;
    for (int i = 63; i >= 0; --i) expected.push_back(i);
    const DeviceArray<int> out(64);
    int wrong = 0;
    for (int repeat = 0; repeat < 10; ++repeat) {
        kernel.run({1, 64}, out.data(), 1);
        EXPECT_EQ(out.values(), expected);
        kernel.run({1, 64}, out.data(), 0);
        wrong += out.values() == expected ? 0 : 1;
    }
    EXPECT_GE(wrong, 9);
}

TEST(Race, BetweenThePassesOfALoopIsFound) {
    // The second barrier is missing: a fast thread overwrites what a slow one has not read.
    const TestKernel kernel(R"(
extern "C" __global__ void test(int* out) {
    __shared__ int buffer[64];
    int sum = 0;
    for (int i = 0; i < 4; ++i) {
        buffer[threadIdx.x] = i;
        __syncthreads();
        sum += buffer[(threadIdx.x + 33) % 64];
    }
    out[threadIdx.x] = sum;
}
)");
    const DeviceArray<int> out(64);
    int wrong = 0;
    for (int repeat = 0; repeat < 20; ++repeat) {
        kernel.run({1, 64}, out.data());
        wrong += out.values() == std::vector<int>(64, 6) ? 0 : 1;
    }
    EXPECT_GE(wrong, 15);
}

TEST(Cluster, BlocksRunTogetherAndSeeEachOthersSharedMemory) {
    const TestKernel kernel(R"(
#include "ptx/mbarrier.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/synchronise.cuh"
extern "C" __global__ void test(unsigned* out) {
    __shared__ unsigned long long barrier;
    const unsigned place = smlora::ptx::shared_address(&barrier);
    const unsigned rank = smlora::ptx::cluster_block_rank();
    if (threadIdx.x == 0) {
        smlora::ptx::mbarrier_init(place, 32);
        smlora::ptx::fence_mbarrier_init();
    }
    smlora::ptx::cluster_sync();
    smlora::ptx::mbarrier_arrive_remote(place, rank ^ 1U);
    smlora::ptx::mbarrier_wait(place, 0);
    if (threadIdx.x == 0) out[blockIdx.x] = rank;
    smlora::ptx::cluster_sync();
}
)");
    const DeviceArray<unsigned> out(6);
    for (int repeat = 0; repeat < 10; ++repeat) kernel.run({6, 32, 0, 2}, out.data());
    EXPECT_EQ(out.values(), (std::vector<unsigned>{0, 1, 0, 1, 0, 1}));
}

TEST(Registers, ThatNobodyGaveUpAreWaitedForInVain) {
    const TestKernel kernel(R"(
#include "ptx/synchronise.cuh"
extern "C" __global__ void __launch_bounds__(256, 1) test(int give) {
    if (threadIdx.x < 128) {
        if (give) smlora::ptx::give_registers_up<40>();
    } else {
        smlora::ptx::take_registers<256>();
    }
}
)");
    kernel.run({1, 256}, 1);
    expect_report(kernel.launch({1, 256}, 0), CUDA_ERROR_LAUNCH_TIMEOUT, {"deadlock", "setmaxnreg.inc"});
}

}  // namespace
}  // namespace smlora::emulator
