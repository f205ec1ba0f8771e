// What a warp does together, and what it must not do apart.
#include "test/gpu.hpp"

namespace smlora::emulator {
namespace {

TEST(Shuffle, EachKindReadsTheLaneThatCudaSays) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(int* out) {
    const int lane = threadIdx.x;
    out[lane] = __shfl_sync(0xffffffffU, lane * 10, 7);
    out[32 + lane] = __shfl_up_sync(0xffffffffU, lane, 3);
    out[64 + lane] = __shfl_down_sync(0xffffffffU, lane, 3);
    out[96 + lane] = __shfl_xor_sync(0xffffffffU, lane, 5);
    out[128 + lane] = __shfl_sync(0xffffffffU, lane, 9, 8);
    out[160 + lane] = __shfl_down_sync(0xffffffffU, lane, 1, 8);
    out[192 + lane] = static_cast<int>(__shfl_xor_sync(0xffffffffU, lane * 0.5, 1) * 2);
}
)");
    const DeviceArray<int> out(224);
    kernel.run({}, out.data());
    const std::vector<int> v = out.values();
    for (int lane = 0; lane < 32; ++lane) {
        const auto at = [&](int row) { return v[static_cast<std::size_t>(row * 32 + lane)]; };
        EXPECT_EQ(at(0), 70);
        EXPECT_EQ(at(1), lane >= 3 ? lane - 3 : lane);
        EXPECT_EQ(at(2), lane <= 28 ? lane + 3 : lane);
        EXPECT_EQ(at(3), lane ^ 5);
        EXPECT_EQ(at(4), lane / 8 * 8 + 1);
        EXPECT_EQ(at(5), lane % 8 == 7 ? lane : lane + 1);
        EXPECT_EQ(at(6), lane ^ 1);
    }
}

TEST(Votes, MatchAndReductionsSeeAllLanesOfTheMask) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(unsigned* out) {
    const unsigned lane = threadIdx.x;
    const unsigned half = lane < 16 ? 0x0000ffffU : 0xffff0000U;
    unsigned* const own = out + lane * 8;
    own[0] = __match_any_sync(0xffffffffU, static_cast<int>(lane % 3));
    own[1] = __ballot_sync(half, lane % 2);
    own[2] = __any_sync(half, lane == 20);
    own[3] = __all_sync(half, lane >= 16);
    own[4] = __reduce_add_sync(half, lane);
    own[5] = static_cast<unsigned>(__reduce_min_sync(0xffffffffU, 5 - static_cast<int>(lane)));
    own[6] = __reduce_max_sync(0xffffffffU, lane ^ 1U);
    own[7] = __reduce_xor_sync(0xffffffffU, 1U << lane % 31);
}
)");
    const DeviceArray<unsigned> out(256);
    kernel.run({}, out.data());
    const std::vector<unsigned> v = out.values();
    for (unsigned lane = 0; lane < 32; ++lane) {
        const unsigned* const own = &v[lane * 8];
        unsigned same = 0;
        for (unsigned other = lane % 3; other < 32; other += 3) same |= 1U << other;
        EXPECT_EQ(own[0], same);
        EXPECT_EQ(own[1], lane < 16 ? 0xaaaaU : 0xaaaa0000U);
        EXPECT_EQ(own[2], lane < 16 ? 0U : 1U);
        EXPECT_EQ(own[3], lane < 16 ? 0U : 1U);
        EXPECT_EQ(own[4], lane < 16 ? 120U : 376U);
        EXPECT_EQ(static_cast<int>(own[5]), -26);
        EXPECT_EQ(own[6], 31U);
        EXPECT_EQ(own[7], 0x7ffffffeU);
    }
}

TEST(Bits, AreCountedAsCudaDoes) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(int* out) {
    if (threadIdx.x != 0) return;
    out[0] = __popc(0xf0f0U);
    out[1] = __clz(1);
    out[2] = __clz(0);
    out[3] = __ffs(8);
    out[4] = static_cast<int>(__fns(0x90U, 0, 2));
    out[5] = static_cast<int>(__fns(0x90U, 5, -1));
    out[6] = static_cast<int>(__brev(1U) >> 31);
    out[7] = min(3, -4) + max(7LL, 9LL);
}
)");
    const DeviceArray<int> out(8);
    kernel.run({}, out.data());
    EXPECT_EQ(out.values(), (std::vector<int>{8, 31, 32, 4, 7, 4, 1, 5}));
}

TEST(Divergence, LanesInDifferentInstructionsAreNamed) {
    const TestKernel kernel(R"(
extern "C" __global__ void test() {
    if (threadIdx.x < 8) __syncwarp();
    else __shfl_sync(0xffffffffU, 1, 0);
}
)");
    expect_report(
        kernel.launch({}), CUDA_ERROR_LAUNCH_FAILED,
        {"warp 0 diverged", "__syncwarp", "__shfl_sync", "kernel.cu:3", "kernel.cu:4", "SMLORA_EMULATOR_SEED="});
}

TEST(Divergence, BarriersOfABlockInTwoBranchesAreAnError) {
    const TestKernel kernel(R"(
extern "C" __global__ void test() {
    if (threadIdx.x % 2 == 0) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}
)");
    expect_report(kernel.launch({1, 64}), CUDA_ERROR_LAUNCH_FAILED, {"diverged", "bar.sync"});
}

TEST(Divergence, ALaneOutsideOfItsOwnMaskIsAnError) {
    const TestKernel kernel("extern \"C\" __global__ void test() { __syncwarp(0xfffffffeU); }");
    expect_report(kernel.launch({}), CUDA_ERROR_LAUNCH_FAILED, {"lane 0 is not in its own mask 0xfffffffe"});
}

TEST(Divergence, DisjointMasksDoNotWaitForEachOther) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(int* out) {
    if (threadIdx.x < 16) {
        for (int i = 0; i < 5; ++i) out[threadIdx.x] = __shfl_xor_sync(0x0000ffffU, i, 1);
    } else {
        __syncwarp(0xffff0000U);
    }
    __syncwarp();
}
)");
    const DeviceArray<int> out(16);
    kernel.run({}, out.data());
    EXPECT_EQ(out.values(), std::vector<int>(16, 4));
}

TEST(EndedLanes, AreNotWaitedFor) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(unsigned* out) {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    out[threadIdx.x] = __ballot_sync(0xffffffffU, 1);
}
)");
    const DeviceArray<unsigned> out(40);
    for (int repeat = 0; repeat < 20; ++repeat) kernel.run({1, 96}, out.data());
    EXPECT_EQ(out.values()[0], 0xffffffffU);
    EXPECT_EQ(out.values()[39], 0xffU);
}

TEST(Atomics, LoseNothing) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(int* out) {
    __shared__ int sum;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    for (int i = 0; i < 10; ++i) atomicAdd(&sum, 1);
    atomicMax(&out[1], static_cast<int>(threadIdx.x));
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(&out[0], sum);
}
)");
    const DeviceArray<int> out(std::vector<int>{0, 0});
    kernel.run({3, 128}, out.data());
    EXPECT_EQ(out.values(), (std::vector<int>{3840, 127}));
}

}  // namespace
}  // namespace smlora::emulator
