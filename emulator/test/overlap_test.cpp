// Launches that may begin before the one before has ended.
#include "test/gpu.hpp"

namespace smlora::emulator {
namespace {

constexpr const char* first_source = R"(
#include "ptx/synchronise.cuh"
extern "C" __global__ void test(int* out) {
    smlora::ptx::let_next_kernel_begin();
    __syncthreads();
    out[blockIdx.x * 64 + threadIdx.x] = 1;
}
)";

constexpr const char* second_source = R"(
#include "ptx/synchronise.cuh"
extern "C" __global__ void test(int* out, const int* in, int wait) {
    if (wait == 1) smlora::ptx::wait_for_earlier_kernels();
    int sum = 0;
    for (int i = 0; i < 192; ++i) sum += in[i];
    out[blockIdx.x * 64 + threadIdx.x] = sum;
    if (wait == 2) smlora::ptx::wait_for_earlier_kernels();
}
)";

class Overlap : public testing::Test {
 protected:
    /// The second's outcome, and whether it saw what the first has written.
    Outcome run(int wait, bool overlaps = true) {
        const DeviceArray<int> in(192), out(192);
        const Outcome begun = first_.launch({.blocks = 3, .threads = 64, .synchronises = false}, in.data());
        EXPECT_EQ(begun.result, CUDA_SUCCESS) << begun.report;
        const Outcome outcome =
            second_.launch({.blocks = 3, .threads = 64, .overlaps = overlaps}, out.data(), in.data(), wait);
        if (outcome.result == CUDA_SUCCESS) complete_ = out.values() == std::vector<int>(192, 192);
        EXPECT_EQ(in.values(), std::vector<int>(192, 1));
        return outcome;
    }
    bool complete_ = false;

 private:
    TestKernel first_{first_source};
    TestKernel second_{second_source};
};

TEST_F(Overlap, AfterAWaitEverythingIsThere) {
    for (int repeat = 0; repeat < 30; ++repeat) {
        const Outcome outcome = run(1);
        ASSERT_EQ(outcome.result, CUDA_SUCCESS) << outcome.report;
        ASSERT_TRUE(complete_);
    }
}

TEST_F(Overlap, WhatIsReadBeforeTheWaitIsOftenNotThere) {
    int incomplete = 0;
    for (int repeat = 0; repeat < 40; ++repeat) {
        ASSERT_EQ(run(2).result, CUDA_SUCCESS);
        incomplete += complete_ ? 0 : 1;
    }
    EXPECT_GE(incomplete, 4);
}

TEST_F(Overlap, ALaunchThatNeverWaitsIsAnError) {
    expect_report(run(0), CUDA_ERROR_LAUNCH_FAILED, {"griddepcontrol.wait"});
}

TEST_F(Overlap, IsOnlyForLaunchesThatSaySo) {
    for (int repeat = 0; repeat < 10; ++repeat) {
        ASSERT_EQ(run(0, false).result, CUDA_SUCCESS);
        ASSERT_TRUE(complete_);
    }
}

}  // namespace
}  // namespace smlora::emulator
