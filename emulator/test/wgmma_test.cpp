// wgmma against products on the host, for every layout that a matrix descriptor can say and with fragments of a in
// registers, and its rules.
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

/// Bits of a small integer, which is exact in both formats, as are sums of products.
std::uint16_t encode(int value, bool bf16) {
    if (value == 0) return 0;
    const unsigned magnitude = static_cast<unsigned>(value < 0 ? -value : value);
    const unsigned exponent = magnitude >= 4 ? 2 : magnitude >= 2 ? 1 : 0;
    const unsigned fraction = (magnitude << (2 - exponent)) & 3U;
    const unsigned bits = bf16 ? (127 + exponent) << 7 | fraction << 5 : (15 + exponent) << 10 | fraction << 8;
    return static_cast<std::uint16_t>(bits | (value < 0 ? 0x8000U : 0U));
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

enum class Fault { none, no_fence, early_fence, overwritten };

struct Steps {
    unsigned n;
    bool b_strided;
    unsigned b_swizzle;
    bool bf16;
    unsigned pending = 0;  ///< groups in flight beside the newest
    unsigned slots = 1;    ///< fragments that take turns
    unsigned count = 1;    ///< of steps, one group each
};

/// d = 1 + sum over the steps of a b, each step with an a of its own.
std::string fragments_source(const Steps& steps) {
    return fmt::format(R"(
#include "ptx/cp_async.cuh"
#include "ptx/synchronise.cuh"
#include "ptx/wgmma_registers.cuh"
using namespace smlora;
extern "C" __global__ void test(float* out, uint32* seen, const uint32* fragments, const unsigned char* b,
                                unsigned bytes, uint64 b_bits, int fence_proxy, int fault) {{
    extern __shared__ __align__(1024) unsigned char shared[];
    for (unsigned i = threadIdx.x; i < bytes; i += 128) shared[i] = b[i];
    if (fence_proxy) ptx::fence_proxy_async();
    __syncthreads();
    const uint64 operand = b_bits | (ptx::shared_address(shared) & 0x3ffffU) >> 4;
    float d[{n} / 2];
    for (int i = 0; i < {n} / 2; ++i) d[i] = 1.0F;
    uint32 a[{slots}][4];
    for (int step = 0; step < {steps}; ++step) {{
        const bool last = step == {steps} - 1;
        uint32 (&fragment)[4] = a[step % {slots}];
        if (last && fault == {early_fence}) ptx::wgmma_fence();
        for (int i = 0; i < 4; ++i) fragment[i] = fragments[(step * 128 + threadIdx.x) * 4 + i];
        if (!last || fault == {none} || fault == {overwritten}) ptx::wgmma_fence();
        ptx::WgmmaOfRegisters<{element}, {n}, {b_strided}>::run(d, fragment, operand);
        ptx::wgmma_commit();
        if (last) {{
            for (int i = 0; i < 4; ++i) seen[threadIdx.x * 4 + i] = fragment[i];
            if (fault == {overwritten} && threadIdx.x == 77) fragment[2] = 0;
        }}
        ptx::wgmma_wait<{pending}>();
    }}
    ptx::wgmma_wait<0>();
    const unsigned lane = threadIdx.x % 32;
    for (int i = 0; i < {n} / 2; ++i) {{
        const unsigned row = threadIdx.x / 32 * 16 + lane / 4 + i / 2 % 2 * 8;
        out[row * {n} + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
    }}
    for (int i = 0; i < 4; ++i) seen[(128 + threadIdx.x) * 4 + i] = a[({steps} - 1) % {slots}][i];
}}
)",
                       fmt::arg("n", steps.n), fmt::arg("slots", steps.slots), fmt::arg("steps", steps.count),
                       fmt::arg("element", steps.bf16 ? "bf16" : "fp16"),
                       fmt::arg("b_strided", steps.b_strided ? 1 : 0), fmt::arg("pending", steps.pending),
                       fmt::arg("none", static_cast<int>(Fault::none)),
                       fmt::arg("early_fence", static_cast<int>(Fault::early_fence)),
                       fmt::arg("overwritten", static_cast<int>(Fault::overwritten)));
}

class ProductOfRegisters {
 public:
    explicit ProductOfRegisters(const Steps& steps)
        : kernel_(fragments_source(steps)),
          out_(64UL * steps.n),
          seen_(2UL * 128 * 4),
          b_(layout(steps.b_strided, steps.b_swizzle, steps.n)),
          expected_(64UL * steps.n, 1.0F) {
        std::mt19937 random(std::random_device{}());
        const auto draw = [&] { return static_cast<int>(random() % 9) - 4; };
        std::vector<std::uint8_t> bytes(shared_bytes_, 0xff);
        std::vector<int> b(steps.n * 16UL);
        for (unsigned i = 0; i < b.size(); ++i) {
            b[i] = draw();
            const std::uint16_t bits = encode(b[i], steps.bf16);
            std::memcpy(&bytes.at(b_.offset(i / 16, i % 16)), &bits, 2);
        }
        std::vector<std::uint32_t> fragments;
        for (unsigned step = 0; step < steps.count; ++step) {
            std::vector<int> a(64UL * 16);
            for (int& value : a) value = draw();
            for (unsigned thread = 0; thread < 128; ++thread) {
                // PTX ISA, "Register fragments for wgmma.mma_async.m64nNk16": elements a0 to a7 of a thread.
                const auto element = [&](unsigned i) {
                    const bool upper_row = i == 2 || i == 3 || i == 6 || i == 7;
                    const unsigned row = thread / 32 * 16 + thread % 32 / 4 + (upper_row ? 8 : 0);
                    const unsigned column = thread % 4 * 2 + (i & 1U) + (i >= 4 ? 8 : 0);
                    return std::uint32_t{encode(a[row * 16 + column], steps.bf16)};
                };
                for (unsigned i = 0; i < 8; i += 2) fragments.push_back(element(i) | element(i + 1) << 16);
            }
            for (unsigned i = 0; i < expected_.size(); ++i) {
                int sum = 0;
                for (unsigned k = 0; k < 16; ++k) sum += a[i / steps.n * 16 + k] * b[i % steps.n * 16 + k];
                expected_[i] += static_cast<float>(sum);
            }
        }
        last_fragments_.assign(fragments.end() - 128L * 4, fragments.end());
        operand_ = std::make_unique<DeviceArray<std::uint8_t>>(bytes);
        fragments_ = std::make_unique<DeviceArray<std::uint32_t>>(fragments);
    }

    struct How {
        Fault fault = Fault::none;
        int fence_proxy = 1;
        std::uint64_t stray = 0;
        unsigned bytes = shared_bytes_;  ///< of shared memory
    };
    [[nodiscard]] Outcome run(const How& how) const {
        return kernel_.launch({1, 128, how.bytes}, out_.data(), seen_.data(), fragments_->data(), operand_->data(),
                              how.bytes, b_.descriptor() | how.stray, how.fence_proxy, static_cast<int>(how.fault));
    }
    void expect_right() const {
        const Outcome outcome = run({});
        EXPECT_EQ(outcome.result, CUDA_SUCCESS) << outcome.report;
        EXPECT_TRUE(out_.values() == expected_);
    }
    /// Of the last step, four registers of each thread: while they were in flight, and after the wait.
    [[nodiscard]] std::vector<std::uint32_t> seen_in_flight() const {
        const auto seen = seen_.values();
        return {seen.begin(), seen.begin() + 128L * 4};
    }
    [[nodiscard]] std::vector<std::uint32_t> seen_after() const {
        const auto seen = seen_.values();
        return {seen.begin() + 128L * 4, seen.end()};
    }
    [[nodiscard]] const std::vector<std::uint32_t>& last_fragments() const { return last_fragments_; }

 private:
    static constexpr unsigned shared_bytes_ = 48 * 1024;
    TestKernel kernel_;
    DeviceArray<float> out_;
    DeviceArray<std::uint32_t> seen_;
    OperandLayout b_;
    std::vector<float> expected_;
    std::vector<std::uint32_t> last_fragments_;
    std::unique_ptr<DeviceArray<std::uint8_t>> operand_;
    std::unique_ptr<DeviceArray<std::uint32_t>> fragments_;
};

TEST(WgmmaOfRegisters, MultipliesByOperandsOfEveryLayout) {
    for (const unsigned n : {8U, 24U, 64U, 136U, 256U}) {
        const unsigned swizzle = n == 8 ? 16 : n == 24 ? 32 : n == 136 ? 64 : 128;
        for (const bool b_strided : {false, true}) {
            for (const bool bf16 : {false, true}) {
                SCOPED_TRACE(fmt::format("n {}, strided {}, bf16 {}", n, b_strided, bf16));
                ProductOfRegisters({n, b_strided, swizzle, bf16}).expect_right();
            }
        }
    }
}

TEST(WgmmaOfRegisters, GroupsInFlightReadTheirOwnFragments) {
    for (const unsigned pending : {1U, 2U}) {
        SCOPED_TRACE(pending);
        const Steps steps{.n = 24,
                          .b_strided = false,
                          .b_swizzle = 32,
                          .bf16 = true,
                          .pending = pending,
                          .slots = pending + 1,
                          .count = 7};
        const ProductOfRegisters product(steps);
        for (int round = 0; round < 20; ++round) product.expect_right();
        Steps one_short = steps;
        one_short.slots = pending;
        expect_report(ProductOfRegisters(one_short).run({}), CUDA_ERROR_LAUNCH_FAILED,
                      {"registers of a of lane", "were written to"});
    }
}

TEST(WgmmaOfRegisters, FragmentsHoldNothingBeforeTheWaitAndTheSameAfterIt) {
    const ProductOfRegisters product({.n = 16, .b_strided = false, .b_swizzle = 32, .bf16 = true});
    product.expect_right();
    EXPECT_EQ(product.seen_in_flight(), std::vector<std::uint32_t>(128 * 4, 0xffffffffU));
    EXPECT_EQ(product.seen_after(), product.last_fragments());
}

TEST(WgmmaOfRegisters, RulesThatWereBrokenAreNamed) {
    // One group is in flight, so that no new fence is due for the accumulators.
    const ProductOfRegisters product(
        {.n = 16, .b_strided = false, .b_swizzle = 32, .bf16 = true, .pending = 1, .slots = 2, .count = 3});
    for (int round = 0; round < 10; ++round) {
        const auto expect = [&](const ProductOfRegisters::How& how, std::initializer_list<const char*> parts) {
            expect_report(product.run(how), CUDA_ERROR_LAUNCH_FAILED, parts);
        };
        expect({.fault = Fault::overwritten}, {"registers of a of lane 13 were written to"});
        expect({.fault = Fault::no_fence}, {"no wgmma.fence since lane", "wrote the registers of a"});
        expect({.fault = Fault::early_fence}, {"no wgmma.fence since lane", "wrote the registers of a"});
        expect({.fence_proxy = 0}, {"without a fence.proxy.async"});
        expect({.stray = 1ULL << 14}, {"bits of no field"});
        expect_report(product.run({.bytes = 256}), CUDA_ERROR_ILLEGAL_ADDRESS, {"outside of the block's"});
        product.expect_right();
    }
}

/// A kernel of one warpgroup with a b of ones; out is d + 100 e.
std::string ones_source(const std::string& functions, const std::string& body) {
    return fmt::format(R"(
#include "ptx/cp_async.cuh"
#include "ptx/synchronise.cuh"
#include "ptx/wgmma_registers.cuh"
#include "wgmma_operand.cuh"
using namespace smlora;
using Product = ptx::WgmmaOfRegisters<bf16, 8, 0>;
__device__ void fill(uint32 (&a)[4], uint32 bits) {{
    for (int i = 0; i < 4; ++i) a[i] = bits;
}}
{}
extern "C" __global__ void test(float* out) {{
    extern __shared__ __align__(1024) unsigned char shared[];
    for (unsigned i = threadIdx.x; i < 1024; i += 128) shared[i] = i % 2 == 0 ? 0x80 : 0x3f;
    ptx::fence_proxy_async();
    __syncthreads();
    const uint64 b = wgmma_operand(ptx::shared_address(shared), 128, 1024, 0);
    float d[4] = {{}};
    float e[4] = {{}};
{}
    for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = d[i] + 100 * e[i];
}}
)",
                       functions, body);
}

TEST(WgmmaOfRegisters, AFragmentMayBeSharedAndUsedAgain) {
    const TestKernel kernel(ones_source("", R"(
    uint32 a[4], c[4];
    fill(a, 0x3f803f80U);
    ptx::wgmma_fence();
    Product::run(d, a, b);
    Product::run(e, a, b);
    ptx::wgmma_commit();
    fill(c, 0x40004000U);
    ptx::wgmma_fence();
    Product::run(d, c, b);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    // The threads have it back, and leave it as it is.
    Product::run(d, a, b);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
)"));
    const DeviceArray<float> out(128UL * 4);
    kernel.run({1, 128, 1024}, out.data());
    EXPECT_EQ(out.values(), std::vector<float>(128 * 4, 16 * (1 + 2 + 1 + 100)));
}

TEST(WgmmaOfRegisters, AFragmentThatEndsBeforeTheWaitIsNamed) {
    // In memory that calls write to again, and so deep that none does.
    for (const int depth : {16, 32 * 1024}) {
        const TestKernel kernel(ones_source(fmt::format(R"(
__device__ __noinline__ void multiply(float (&d)[4], uint64 b) {{
    uint32 a[4];
    fill(a, 0x3f803f80U);
    ptx::wgmma_fence();
    Product::run(d, a, b);
}}
__device__ __noinline__ void multiply_deep(float (&d)[4], uint64 b) {{
    volatile unsigned char between[{}];
    between[0] = 0;
    multiply(d, b);
    between[0] = 1;
}}
)",
                                                        depth),
                                            R"(
    multiply_deep(d, b);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
)"));
        const DeviceArray<float> out(128UL * 4);
        expect_report(kernel.launch({1, 128, 1024}, out.data()), CUDA_ERROR_LAUNCH_FAILED,
                      {"registers of a of lane", "or their array has ended"});
    }
}

TEST(WgmmaOfRegisters, AFragmentThatIsNoLocalArrayIsNamed) {
    const TestKernel kernel(ones_source("", R"(
    ptx::wgmma_fence();
    Product::run(d, *reinterpret_cast<uint32(*)[4]>(shared), b);
)"));
    const DeviceArray<float> out(128UL * 4);
    expect_report(kernel.launch({1, 128, 1024}, out.data()), CUDA_ERROR_LAUNCH_FAILED, {"are no local array"});
}

TEST(WgmmaOfRegisters, WarpsThatHaveTheOperandElsewhereAreNamed) {
    const TestKernel kernel(ones_source("", R"(
    uint32 a[4];
    fill(a, 0x3f803f80U);
    ptx::wgmma_fence();
    if (threadIdx.x < 64) Product::run(d, a, b);
    else ptx::Wgmma<bf16, 8, 0, 0>::run(d, b, b);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
)"));
    const DeviceArray<float> out(128UL * 4);
    expect_report(kernel.launch({1, 128, 8 * 1024}, out.data()), CUDA_ERROR_LAUNCH_FAILED,
                  {"instruction 0 of warp", "has registers, descriptor", "has descriptor"});
}

}  // namespace
}  // namespace smlora::emulator
