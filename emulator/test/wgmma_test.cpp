// wgmma against products on the host, for every layout that a matrix descriptor can say, and its rules.
#include "test/gpu.hpp"

#include <fmt/format.h>

#include <memory>
#include <random>

namespace smlora::emulator {
namespace {

/// Where an element of an operand lies: the canonical layouts of the PTX ISA, with strides of our choice.
struct OperandLayout {
    bool strided;      ///< the reduction is; else it is contiguous
    unsigned swizzle;  ///< bytes; 16: none
    unsigned leading, stride;

    /// Byte offset of element (major index i, k).
    [[nodiscard]] unsigned offset(unsigned i, unsigned k) const {
        unsigned byte = 0;
        const unsigned width = swizzle / 2;  // elements of a row
        if (!strided) {
            byte = i / 8 * stride + i % 8 * swizzle + (swizzle == 16 ? k / 8 * leading + k % 8 * 2 : k * 2);
        } else if (swizzle == 16) {
            byte = i / 8 * stride + k / 8 * leading + k % 8 * 16 + i % 8 * 2;
        } else {
            byte = i / width * leading + k / 8 * stride + k % 8 * swizzle + i % width * 2;
        }
        if (swizzle == 16) return byte;
        const unsigned chunks = swizzle / 16;
        const unsigned chunk = byte / 16 % chunks;
        return byte - chunk * 16 + (chunk ^ (byte / 128 % 8 % chunks)) * 16;
    }
    [[nodiscard]] std::uint64_t descriptor() const {
        const std::uint64_t code = swizzle == 16 ? 0 : swizzle == 32 ? 3 : swizzle == 64 ? 2 : 1;
        return std::uint64_t{leading / 16} << 16 | std::uint64_t{stride / 16} << 32 | code << 62;
    }
};

/// With gaps between the pieces where there is room, so that the two strides cannot be taken for each other.
OperandLayout layout(bool strided, unsigned swizzle, unsigned extent) {
    const unsigned gap = extent < 256 ? 1024 : 0;
    const unsigned atom = 8 * swizzle;  // bytes of eight rows
    if (swizzle == 16) return {strided, swizzle, 128 + 16, 2 * (128 + 16) + 32};
    if (!strided) return {strided, swizzle, 0, atom + gap};
    const unsigned pieces = (extent * 2 + swizzle - 1) / swizzle;
    return pieces == 1 ? OperandLayout{true, swizzle, 0, atom + gap}
                       : OperandLayout{true, swizzle, 2 * (atom + gap), atom + gap};
}

/// Two instructions of the same operands: d = 1 + 2 a b.
std::string kernel_source(unsigned n, bool a_strided, bool b_strided, const char* element) {
    return fmt::format(R"(
#include "ptx/cp_async.cuh"
#include "ptx/synchronise.cuh"
#include "ptx/wgmma.cuh"
#include "wgmma_operand.cuh"
using namespace smlora;
extern "C" __global__ void test(float* out, const unsigned char* operands, unsigned bytes, unsigned b_at, uint64 a_bits,
                                uint64 b_bits, int fence_proxy, int fence, int wait) {{
    extern __shared__ __align__(1024) unsigned char shared[];
    for (unsigned i = threadIdx.x; i < bytes; i += 128) shared[i] = operands[i];
    if (fence_proxy) ptx::fence_proxy_async();
    __syncthreads();
    const unsigned base = ptx::shared_address(shared);
    float d[{0} / 2];
    for (int i = 0; i < {0} / 2; ++i) d[i] = 1.0F;
    const uint64 a = a_bits | (base & 0x3ffffU) >> 4;
    const uint64 b = b_bits | ((base + b_at) & 0x3ffffU) >> 4;
    if (fence) ptx::wgmma_fence();
    ptx::Wgmma<{3}, {0}, {1}, {2}>::run(d, a, b);
    ptx::Wgmma<{3}, {0}, {1}, {2}>::run(d, a, b);
    ptx::wgmma_commit();
    if (wait) ptx::wgmma_wait<0>();
    const unsigned lane = threadIdx.x % 32;
    for (int i = 0; i < {0} / 2; ++i) {{
        const unsigned row = threadIdx.x / 32 * 16 + lane / 4 + i / 2 % 2 * 8;
        out[row * {0} + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
    }}
    ptx::wgmma_wait<0>();
}}
)",
                       n, a_strided ? 1 : 0, b_strided ? 1 : 0, element);
}

struct Run {
    int fence_proxy = 1, fence = 1, wait = 1;
    std::uint64_t stray = 0;
};

class Product {
 public:
    Product(unsigned n, bool a_strided, unsigned a_swizzle, bool b_strided, unsigned b_swizzle, bool bf16)
        : kernel_(kernel_source(n, a_strided, b_strided, bf16 ? "bf16" : "fp16")),
          out_(64UL * n),
          a_(layout(a_strided, a_swizzle, 64)),
          b_(layout(b_strided, b_swizzle, n)) {
        std::mt19937 random(std::random_device{}());
        std::vector<std::uint8_t> bytes(96 * 1024, 0xff);
        std::vector<float> a(64 * 16), b(n * 16UL);
        const auto fill = [&](std::vector<float>& values, const OperandLayout& of, unsigned at) {
            for (unsigned i = 0; i < values.size() / 16; ++i) {
                for (unsigned k = 0; k < 16; ++k) {
                    // Small integers: exact in both formats and in any order of summation.
                    const int value = static_cast<int>(random() % 9) - 4;
                    values[i * 16 + k] = static_cast<float>(value);
                    const std::uint16_t bits = encode(value, bf16);
                    std::memcpy(&bytes.at(at + of.offset(i, k)), &bits, 2);
                }
            }
        };
        fill(a, a_, 0);
        fill(b, b_, b_at_);
        for (unsigned m = 0; m < 64; ++m) {
            for (unsigned j = 0; j < n; ++j) {
                float sum = 0;
                for (unsigned k = 0; k < 16; ++k) sum += a[m * 16 + k] * b[j * 16 + k];
                expected_.push_back(1 + 2 * sum);
            }
        }
        operands_ = std::make_unique<DeviceArray<std::uint8_t>>(bytes);
    }

    [[nodiscard]] Outcome run(const Run& how = {}) const {
        return kernel_.launch({1, 128, 96 * 1024}, out_.data(), operands_->data(), 96U * 1024, b_at_,
                              a_.descriptor() | how.stray, b_.descriptor(), how.fence_proxy, how.fence, how.wait);
    }
    [[nodiscard]] bool is_right() const { return out_.values() == expected_; }

 private:
    static std::uint16_t encode(int value, bool bf16) {
        if (value == 0) return 0;
        const unsigned magnitude = static_cast<unsigned>(value < 0 ? -value : value);
        const unsigned exponent = magnitude >= 4 ? 2 : magnitude >= 2 ? 1 : 0;
        const unsigned fraction = (magnitude << (2 - exponent)) & 3U;
        const unsigned bits = bf16 ? (127 + exponent) << 7 | fraction << 5 : (15 + exponent) << 10 | fraction << 8;
        return static_cast<std::uint16_t>(bits | (value < 0 ? 0x8000U : 0U));
    }

    static constexpr unsigned b_at_ = 48 * 1024;
    TestKernel kernel_;
    DeviceArray<float> out_;
    OperandLayout a_, b_;
    std::vector<float> expected_;
    std::unique_ptr<DeviceArray<std::uint8_t>> operands_;
};

TEST(Wgmma, MultipliesOperandsOfEveryLayout) {
    for (const unsigned a_swizzle : {16U, 32U, 64U, 128U}) {
        for (const bool a_strided : {false, true}) {
            const bool b_strided = (a_swizzle / 32 + (a_strided ? 1U : 0U)) % 2 == 0;
            for (const unsigned b_swizzle : {16U, 32U, 64U, 128U}) {
                const unsigned n = b_swizzle == 64 ? 24 : b_swizzle == 128 ? 136 : 64;
                const Product product(n, a_strided, a_swizzle, b_strided, b_swizzle, a_swizzle == 64);
                const Outcome outcome = product.run();
                ASSERT_EQ(outcome.result, CUDA_SUCCESS) << outcome.report;
                EXPECT_TRUE(product.is_right()) << "a: swizzle " << a_swizzle << " strided " << a_strided
                                                << ", b: swizzle " << b_swizzle << " strided " << b_strided;
            }
        }
    }
    for (const bool b_strided : {false, true}) {
        const Product widest(256, false, 128, b_strided, 128, true);
        EXPECT_EQ(widest.run().result, CUDA_SUCCESS);
        EXPECT_TRUE(widest.is_right());
    }
}

TEST(Wgmma, AccumulatorsHoldNothingBeforeTheWait) {
    const Product product(16, false, 128, true, 32, true);
    const Outcome outcome = product.run({.wait = 0});
    EXPECT_EQ(outcome.result, CUDA_SUCCESS) << outcome.report;
    EXPECT_FALSE(product.is_right());
}

TEST(Wgmma, RulesThatWereBrokenAreNamed) {
    const Product product(16, false, 128, true, 32, true);
    expect_report(product.run({.fence_proxy = 0}), CUDA_ERROR_LAUNCH_FAILED, {"without a fence.proxy.async"});
    expect_report(product.run({.fence = 0}), CUDA_ERROR_LAUNCH_FAILED, {"no wgmma.fence"});
    expect_report(product.run({.stray = 1ULL << 14}), CUDA_ERROR_LAUNCH_FAILED, {"bits of no field"});
    EXPECT_EQ(product.run().result, CUDA_SUCCESS);
    EXPECT_TRUE(product.is_right());
}

TEST(Wgmma, WarpsThatIssueDifferentInstructionsAreNamed) {
    const TestKernel kernel(R"(
#include "ptx/cp_async.cuh"
#include "ptx/wgmma.cuh"
#include "wgmma_operand.cuh"
using namespace smlora;
extern "C" __global__ void test() {
    extern __shared__ __align__(1024) unsigned char shared[];
    const unsigned base = ptx::shared_address(shared) + threadIdx.x / 64 * 1024;
    float d[4] = {};
    ptx::wgmma_fence();
    ptx::Wgmma<bf16, 8, 0, 0>::run(d, wgmma_operand(base, 128, 1024, 0), wgmma_operand(base, 128, 1024, 0));
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
}
)");
    expect_report(kernel.launch({1, 128, 32 * 1024}), CUDA_ERROR_LAUNCH_FAILED, {"instruction 0 of warp"});
}

TEST(Wgmma, ADescriptorBeyondSharedMemoryIsFound) {
    const TestKernel kernel(R"(
#include "ptx/cp_async.cuh"
#include "ptx/wgmma.cuh"
#include "wgmma_operand.cuh"
using namespace smlora;
extern "C" __global__ void test() {
    extern __shared__ __align__(1024) unsigned char shared[];
    const uint64 operand = wgmma_operand(ptx::shared_address(shared), 128, 1024, 0);
    float d[4] = {};
    ptx::wgmma_fence();
    ptx::Wgmma<bf16, 8, 0, 0>::run(d, operand, operand);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
}
)");
    kernel.run({1, 128, 8 * 1024});
    expect_report(kernel.launch({1, 128, 8 * 1024 - 16}), CUDA_ERROR_ILLEGAL_ADDRESS, {"outside of the block's"});
}

}  // namespace
}  // namespace smlora::emulator
