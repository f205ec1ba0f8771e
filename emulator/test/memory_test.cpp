// Accesses that a GPU may let pass: outside of memory, of another thread's, not aligned, of nothing.
#include "test/gpu.hpp"

namespace smlora::emulator {
namespace {

TEST(Bounds, OneElementPastTheEndIsFoundWithItsLine) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(float* out, const float* in, int shift) {
    const int i = threadIdx.x;
    out[i] = in[i + shift];
}
)");
    const DeviceArray<float> out(32);
    const DeviceArray<float> in(32);
    kernel.run({}, out.data(), in.data(), 0);
    expect_report(
        kernel.launch({}, out.data(), in.data(), 1), CUDA_ERROR_ILLEGAL_ADDRESS,
        {"thread 31 of block (0, 0, 0)", "load of 4 bytes", "0 bytes past the end of the 128", "kernel.cu:4"});
    expect_report(kernel.launch({}, out.data() + 1, in.data(), 0), CUDA_ERROR_ILLEGAL_ADDRESS, {"store of 4 bytes"});
}

TEST(Bounds, MemoryThatWasFreedIsNoMemory) {
    const TestKernel kernel("extern \"C\" __global__ void test(int* out) { out[threadIdx.x] = 1; }");
    CUdeviceptr address = 0;
    ASSERT_EQ(driver().cuMemAlloc(&address, 128), CUDA_SUCCESS);
    ASSERT_EQ(driver().cuMemFree(address), CUDA_SUCCESS);
    expect_report(kernel.launch({}, reinterpret_cast<int*>(address)), CUDA_ERROR_ILLEGAL_ADDRESS, {"out of bounds"});
}

TEST(Bounds, DynamicSharedMemoryEndsWhereTheLaunchSays) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(int at) {
    extern __shared__ __align__(128) unsigned char shared[];
    if (threadIdx.x == 0) reinterpret_cast<int*>(shared)[at] = 1;
}
)");
    kernel.run({1, 32, 1000}, 249);
    expect_report(kernel.launch({1, 32, 1000}, 250), CUDA_ERROR_ILLEGAL_ADDRESS, {"1000 bytes are dynamic"});
    expect_report(kernel.launch({1, 32, 1000}, -1), CUDA_ERROR_ILLEGAL_ADDRESS, {"1000 bytes are dynamic"});
}

TEST(Bounds, StaticVariablesAreNotNeighbours) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(int at) {
    __shared__ int first[8];
    __shared__ int second[4][2];
    first[at] = 1;
    second[3][1] = 2;
}
)");
    kernel.run({}, 7);
    EXPECT_EQ(kernel.launch({}, 8).result, CUDA_ERROR_ILLEGAL_ADDRESS);
    EXPECT_EQ(kernel.launch({}, -1).result, CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST(Bounds, AHostWriteIntoAGuardIsFoundWhenTheMemoryIsFreed) {
    CUdeviceptr address = 0;
    ASSERT_EQ(driver().cuMemAlloc(&address, 100), CUDA_SUCCESS);
    std::memset(reinterpret_cast<char*>(address) + 101, 0, 1);
    testing::internal::CaptureStderr();
    EXPECT_EQ(driver().cuMemFree(address), CUDA_ERROR_ILLEGAL_ADDRESS);
    EXPECT_NE(testing::internal::GetCapturedStderr().find("1 bytes past the end of the 100"), std::string::npos);
}

TEST(Alignment, OfAVectorAccessIsChecked) {
    const TestKernel kernel(R"(
struct alignas(16) Vector { unsigned word[4]; };
extern "C" __global__ void test(unsigned* out, int shift) {
    if (threadIdx.x == 0) *reinterpret_cast<Vector*>(out + shift) = Vector{};
}
)");
    const DeviceArray<unsigned> out(16);
    kernel.run({}, out.data(), 4);
    expect_report(kernel.launch({}, out.data(), 2), CUDA_ERROR_ILLEGAL_ADDRESS, {"16 bytes", "not aligned"});
}

TEST(LocalMemory, OfAnotherThreadCannotBeReached) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(int** place) {
    int own = threadIdx.x;
    if (threadIdx.x == 0) *place = &own;
    __syncthreads();
    **place = 7;
    __syncthreads();
}
)");
    const DeviceArray<int*> place(1);
    expect_report(kernel.launch({}, place.data()), CUDA_ERROR_ILLEGAL_ADDRESS, {"local memory of thread 0"});
}

TEST(Poison, IsWhatNobodyHasWritten) {
    const TestKernel kernel(R"(
extern "C" __global__ void test(unsigned* out) {
    extern __shared__ unsigned shared[];
    __shared__ unsigned variable;
    out[1] = shared[0];
    out[2] = variable;
    shared[0] = variable = 1;
}
)");
    const DeviceArray<unsigned> out(3);
    kernel.run({2, 1, 4}, out.data());
    kernel.run({2, 1, 4}, out.data());
    EXPECT_EQ(out.values(), std::vector<unsigned>(3, 0xffffffffU));
}

TEST(Limits, OfALaunchAreThoseOfTheGpu) {
    const TestKernel kernel("extern \"C\" __global__ void __launch_bounds__(64) test() {}");
    kernel.run({1, 64, 227 * 1024});
    EXPECT_EQ(kernel.launch({1, 65}).result, CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(kernel.launch({1, 64, 227 * 1024 + 1}).result, CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(kernel.launch({3, 64, 0, 2}).result, CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(kernel.launch({0, 64}).result, CUDA_ERROR_INVALID_VALUE);
}

}  // namespace
}  // namespace smlora::emulator
