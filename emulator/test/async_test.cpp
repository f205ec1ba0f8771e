// Copies that arrive when they like: cp.async, mbarriers, bulk tensor copies.
#include "test/gpu.hpp"

#include <numeric>

namespace smlora::emulator {
namespace {

std::vector<unsigned> numbers(std::size_t count) {
    std::vector<unsigned> values(count);
    std::iota(values.begin(), values.end(), 0U);
    return values;
}

constexpr const char* copies = R"(
#include "ptx/cp_async.cuh"
#include "ptx/mbarrier.cuh"
using namespace smlora;
extern "C" __global__ void test(unsigned* out, const unsigned* in, int pending, unsigned bytes) {
    __shared__ __align__(16) unsigned tile[2][32][4];
    const unsigned lane = threadIdx.x;
    for (int stage = 0; stage < 2; ++stage) {
        ptx::cp_async_16(ptx::shared_address(tile[stage][lane]), in + (stage * 32 + lane) * 4, bytes);
        ptx::cp_async_commit();
    }
    if (pending == 0) ptx::cp_async_wait<0>();
    if (pending == 1) ptx::cp_async_wait<1>();
    for (int i = 0; i < 4; ++i) out[lane * 4 + i] = tile[1][lane][i];
    ptx::cp_async_wait<0>();
}
)";

TEST(CpAsync, IsThereAfterTheWaitAndOftenNotBefore) {
    const TestKernel kernel(copies);
    const DeviceArray<unsigned> in(numbers(256));
    const DeviceArray<unsigned> out(128);
    std::vector<unsigned> expected(128);
    std::iota(expected.begin(), expected.end(), 128U);
    int early = 0;
    for (int repeat = 0; repeat < 20; ++repeat) {
        kernel.run({}, out.data(), in.data(), 0, 16U);
        ASSERT_EQ(out.values(), expected);
        kernel.run({}, out.data(), in.data(), 1, 16U);  // leaves the second group under way
        early += out.values() == expected ? 0 : 1;
    }
    EXPECT_GE(early, 8);
}

TEST(CpAsync, FillsWithZerosAndChecksBothSides) {
    const TestKernel kernel(copies);
    const DeviceArray<unsigned> in(numbers(256));
    const DeviceArray<unsigned> out(128);
    kernel.run({}, out.data(), in.data(), 0, 4U);
    for (unsigned i = 0; i < 128; ++i) EXPECT_EQ(out.values()[i], i % 4 == 0 ? 128 + i : 0);
    expect_report(kernel.launch({}, out.data(), in.data() + 4, 0, 16U), CUDA_ERROR_ILLEGAL_ADDRESS,
                  {"cp.async at kernel.cu:9", "not in device memory"});
    expect_report(kernel.launch({}, out.data(), in.data() + 1, 0, 8U), CUDA_ERROR_LAUNCH_FAILED, {"not aligned to 16"});
}

TEST(Mbarrier, CountsThreadsAndTheirCopies) {
    const TestKernel kernel(R"(
#include "ptx/cp_async.cuh"
#include "ptx/mbarrier.cuh"
using namespace smlora;
extern "C" __global__ void test(unsigned* out, const unsigned* in) {
    __shared__ __align__(16) unsigned tile[32][4];
    __shared__ unsigned long long barriers[2];
    const unsigned filled = ptx::shared_address(&barriers[0]);
    const unsigned emptied = ptx::shared_address(&barriers[1]);
    const unsigned lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(filled, 32);
        ptx::mbarrier_init(emptied, 32);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    for (unsigned i = 0; i < 6; ++i) {
        if (threadIdx.x < 32) {
            ptx::mbarrier_wait(emptied, (i & 1U) ^ 1U);
            ptx::cp_async_16(ptx::shared_address(tile[lane]), in + (i * 32 + lane) * 4);
            ptx::cp_async_arrive(filled);
        } else {
            ptx::mbarrier_wait(filled, i & 1U);
            for (int j = 0; j < 4; ++j) out[(i * 32 + lane) * 4 + j] = tile[31 - lane][j];
            ptx::mbarrier_arrive(emptied);
        }
    }
}
)");
    const DeviceArray<unsigned> in(numbers(768));
    const DeviceArray<unsigned> out(768);
    for (int repeat = 0; repeat < 20; ++repeat) {
        kernel.run({1, 64}, out.data(), in.data());
        const std::vector<unsigned> v = out.values();
        for (unsigned i = 0; i < 768; ++i) ASSERT_EQ(v[i], i / 128 * 128 + (31 - i / 4 % 32) * 4 + i % 4);
    }
}

std::string with_barrier(const char* body) {
    return std::string(R"(
#include "ptx/cp_async.cuh"
#include "ptx/mbarrier.cuh"
using namespace smlora;
extern "C" __global__ void test() {
    __shared__ unsigned long long place[2];
    const unsigned barrier = ptx::shared_address(place);
    if (threadIdx.x == 0) ptx::mbarrier_init(barrier, 2);
    __syncwarp();
)") + body +
           "}\n";
}

TEST(Mbarrier, MisuseIsNamed) {
    const auto report = [](const char* body) { return TestKernel(with_barrier(body)).launch({}); };
    expect_report(report("ptx::mbarrier_wait(barrier + 8, 1);"), CUDA_ERROR_LAUNCH_FAILED, {"was not initialised"});
    expect_report(report("place[0] = 3; ptx::mbarrier_wait(barrier, 1);"), CUDA_ERROR_LAUNCH_FAILED,
                  {"its memory was written to"});
    expect_report(
        report("if (threadIdx.x == 0) { ptx::mbarrier_arrive_expect(barrier, 64); ptx::mbarrier_arrive(barrier); "
               "ptx::mbarrier_arrive(barrier); }"),
        CUDA_ERROR_LAUNCH_FAILED, {"one arrival too many"});
    expect_report(
        report("if (threadIdx.x == 0) ptx::mbarrier_arrive_expect(barrier, 64); ptx::mbarrier_wait(barrier, 0);"),
        CUDA_ERROR_LAUNCH_TIMEOUT, {"deadlock", "mbarrier.try_wait", "for parity 0"});
    // The phase before the first counts as complete.
    EXPECT_EQ(report("ptx::mbarrier_wait(barrier, 1);").result, CUDA_SUCCESS);
}

/// A map of a [3][20][96] tensor of 16-bit elements with boxes of 16 rows of `span` bytes.
CUtensorMap tensor_map(const std::uint16_t* data, unsigned span, CUtensorMapSwizzle swizzle) {
    alignas(64) CUtensorMap map{};
    const std::array<cuuint64_t, 3> sizes{96, 20, 3};
    const std::array<cuuint64_t, 2> strides{96 * 2, 20 * 96 * 2};
    const std::array<cuuint32_t, 3> box{span / 2, 16, 1};
    const std::array<cuuint32_t, 3> steps{1, 1, 1};
    EXPECT_EQ(driver().cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3,
                                              const_cast<std::uint16_t*>(data), sizes.data(), strides.data(),
                                              box.data(), steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                              CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
              CUDA_SUCCESS);
    return map;
}

constexpr const char* load_box = R"(
#include "ptx/cp_async.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/synchronise.cuh"
#include "ptx/tma.cuh"
using namespace smlora;
extern "C" __global__ void test(const __grid_constant__ TensorMap map, unsigned short* out, int x, int y, int z,
                                unsigned bytes, unsigned expected, int multicast, int policies) {
    extern __shared__ __align__(1024) unsigned char shared[];
    __shared__ unsigned long long place;
    const unsigned barrier = ptx::shared_address(&place);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
        ptx::fence_mbarrier_init();
    }
    ptx::cluster_sync();
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect(barrier, expected);
        const unsigned target = ptx::shared_address(shared);
        const unsigned long long policy = policies == 1 ? ptx::l2_policy(true) : 0;
        if (multicast) {
            if (ptx::cluster_block_rank() == 0) {
                if (policies == 0) {
                    ptx::tma_load_multicast(target, map, barrier, x, y, z, 3);
                } else {
                    ptx::tma_load_multicast(target, map, barrier, x, y, z, 3, policy);
                }
            }
        } else if (policies == 0) {
            ptx::tma_load(target, map, barrier, x, y, z);
        } else {
            ptx::tma_load(target, map, barrier, x, y, z, policy);
        }
    }
    ptx::mbarrier_wait(barrier, 0);
    for (unsigned i = threadIdx.x; i < bytes / 2; i += 32) {
        out[blockIdx.x * bytes / 2 + i] = reinterpret_cast<const unsigned short*>(shared)[i];
    }
    ptx::cluster_sync();
}
)";

TEST(BulkTensorCopy, PutsABoxWhereItsSwizzleSays) {
    std::vector<std::uint16_t> elements(3 * 20 * 96);
    std::iota(elements.begin(), elements.end(), std::uint16_t{1});
    const DeviceArray<std::uint16_t> in(elements);
    const TestKernel kernel(load_box);
    const std::pair<unsigned, CUtensorMapSwizzle> swizzles[] = {{128, CU_TENSOR_MAP_SWIZZLE_128B},
                                                                {64, CU_TENSOR_MAP_SWIZZLE_64B},
                                                                {32, CU_TENSOR_MAP_SWIZZLE_32B},
                                                                {48, CU_TENSOR_MAP_SWIZZLE_NONE}};
    for (const auto& [span, swizzle] : swizzles) {
        const CUtensorMap map = tensor_map(in.data(), span, swizzle);
        const DeviceArray<std::uint16_t> out(span * 16);  // for two blocks
        for (const auto& [multicast, policies] : {std::pair{0, 0}, {1, 0}, {0, 1}, {1, 1}}) {
            // Ends beyond the tensor in both dimensions.
            const int x = 80, y = 9, z = 2;
            kernel.run({2, 32, 16 * 1024, 2}, map, out.data(), x, y, z, span * 16, span * 16, multicast, policies);
            const std::vector<std::uint16_t> v = out.values();
            for (unsigned row = 0; row < 16; ++row) {
                for (unsigned column = 0; column < span / 2; ++column) {
                    // Chunks of 16 bytes change places within a row by the number of their 128-byte line.
                    const unsigned byte = row * span + column * 2;
                    const unsigned chunks = swizzle == CU_TENSOR_MAP_SWIZZLE_NONE ? 1 : span / 16;
                    const unsigned chunk = (byte / 16 % chunks) ^ (byte / 128 % 8 % chunks);
                    const unsigned place = byte / (16 * chunks) * (16 * chunks) + chunk * 16 + byte % 16;
                    const bool inside = 80 + column < 96 && 9 + row < 20;
                    const std::size_t from = (2 * 20 + 9 + row) * std::size_t{96} + 80 + column;
                    for (unsigned block = 0; block < 2; ++block) {
                        ASSERT_EQ(v[block * span * 8 + place / 2], inside ? elements[from] : 0)
                            << "span " << span << " row " << row << " column " << column;
                    }
                }
            }
        }
    }
}

TEST(BulkTensorCopy, BytesThatDoNotAddUpAreADeadlock) {
    const DeviceArray<std::uint16_t> in(3 * 20 * 96);
    const DeviceArray<std::uint16_t> out(1024);
    const CUtensorMap map = tensor_map(in.data(), 128, CU_TENSOR_MAP_SWIZZLE_128B);
    const TestKernel kernel(load_box);
    expect_report(kernel.launch({1, 32, 16 * 1024}, map, out.data(), 0, 0, 0, 2048U, 2064U, 0, 0),
                  CUDA_ERROR_LAUNCH_TIMEOUT, {"deadlock", "mbarrier"});
}

TEST(BulkTensorCopy, APolicyThatCreatepolicyDidNotMakeIsReported) {
    const DeviceArray<std::uint16_t> in(3 * 20 * 96);
    const DeviceArray<std::uint16_t> out(2048);
    const CUtensorMap map = tensor_map(in.data(), 128, CU_TENSOR_MAP_SWIZZLE_128B);
    const TestKernel kernel(load_box);
    for (const int multicast : {0, 1}) {
        expect_report(kernel.launch({2, 32, 16 * 1024, 2}, map, out.data(), 0, 0, 0, 2048U, 2048U, multicast, 2),
                      CUDA_ERROR_LAUNCH_FAILED, {"a policy that createpolicy did not make"});
    }
}

TEST(BulkTensorCopy, AMapThatTheDriverDidNotMakeIsRefused) {
    const DeviceArray<std::uint16_t> out(1024);
    const CUtensorMap map{};
    const TestKernel kernel(load_box);
    expect_report(kernel.launch({1, 32, 16 * 1024}, map, out.data(), 0, 0, 0, 2048U, 2048U, 0, 0),
                  CUDA_ERROR_LAUNCH_FAILED, {"was not made by cuTensorMapEncodeTiled"});
}

TEST(TensorMap, ArgumentsAreCheckedAsDocumented) {
    const DeviceArray<std::uint16_t> in(1024);
    const auto encode = [&](unsigned shift, cuuint64_t stride, cuuint32_t box, CUtensorMapSwizzle swizzle) {
        alignas(64) CUtensorMap map{};
        const std::array<cuuint64_t, 2> sizes{64, 8};
        const std::array<cuuint32_t, 2> boxes{box, 8};
        const std::array<cuuint32_t, 2> steps{1, 1};
        testing::internal::CaptureStderr();
        const CUresult result =
            driver().cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, in.data() + shift, sizes.data(),
                                            &stride, boxes.data(), steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                            CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
        testing::internal::GetCapturedStderr();
        return result;
    };
    EXPECT_EQ(encode(0, 128, 64, CU_TENSOR_MAP_SWIZZLE_128B), CUDA_SUCCESS);
    EXPECT_EQ(encode(4, 128, 64, CU_TENSOR_MAP_SWIZZLE_128B), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(encode(0, 132, 64, CU_TENSOR_MAP_SWIZZLE_128B), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(encode(0, 128, 64, CU_TENSOR_MAP_SWIZZLE_64B), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(encode(0, 128, 4, CU_TENSOR_MAP_SWIZZLE_NONE), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(encode(0, 128, 512, CU_TENSOR_MAP_SWIZZLE_NONE), CUDA_ERROR_INVALID_VALUE);
}

}  // namespace
}  // namespace smlora::emulator
