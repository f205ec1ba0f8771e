// ldmatrix, stmatrix, mma.sync and conversions, against the host.
#include "cpu/convert.hpp"
#include "test/gpu.hpp"

#include <cmath>
#include <random>

namespace smlora::emulator {
namespace {

TEST(Ldmatrix, GivesEachLaneItsElements) {
    const TestKernel kernel(R"(
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/stmatrix.cuh"
using namespace smlora;
extern "C" __global__ void test(unsigned short* out, int transposed) {
    __shared__ __align__(16) unsigned short matrices[32][8];
    __shared__ __align__(16) unsigned short copies[32][8];
    const unsigned lane = threadIdx.x;
    for (int i = 0; i < 8; ++i) matrices[lane][i] = lane * 8 + i;
    __syncwarp();
    unsigned registers[4];
    const unsigned address = ptx::shared_address(matrices[lane]);
    if (transposed) ptx::ldmatrix_x4_trans(registers, address);
    else ptx::ldmatrix_x4(registers, address);
    for (int i = 0; i < 4; ++i) {
        out[(i * 32 + lane) * 2] = registers[i];
        out[(i * 32 + lane) * 2 + 1] = registers[i] >> 16;
    }
    ptx::stmatrix_x4_trans(ptx::shared_address(copies[lane]), registers[0], registers[1], registers[2], registers[3]);
    __syncwarp();
    for (int i = 0; i < 8; ++i) out[256 + lane * 8 + i] = copies[lane][i];
}
)");
    const DeviceArray<std::uint16_t> out(512);
    for (const int transposed : {0, 1}) {
        kernel.run({}, out.data(), transposed);
        const std::vector<std::uint16_t> v = out.values();
        for (unsigned i = 0; i < 256; ++i) {
            const unsigned matrix = i / 64, row = i / 2 % 32 / 4, column = i / 2 % 4 * 2 + i % 2;
            EXPECT_EQ(v[i], matrix * 64 + (transposed != 0 ? column * 8 + row : row * 8 + column));
            // Stored transposed: a matrix that was loaded so is itself again.
            const unsigned r = i / 8 % 8, c = i % 8;
            EXPECT_EQ(v[256 + i], matrix * 64 + (transposed != 0 ? r * 8 + c : c * 8 + r));
        }
    }
}

TEST(Mma, MultipliesFragments) {
    const TestKernel kernel(R"(
#include "ptx/mma.cuh"
using namespace smlora;
extern "C" __global__ void test(float* out, const unsigned short* a, const unsigned short* b) {
    const int lane = threadIdx.x;
    auto pair = [](const unsigned short* from, int step) { return from[0] | static_cast<unsigned>(from[step]) << 16; };
    unsigned fa[4], fb[2];
    for (int r = 0; r < 4; ++r) fa[r] = pair(a + (lane / 4 + r % 2 * 8) * 16 + lane % 4 * 2 + r / 2 * 8, 1);
    for (int r = 0; r < 2; ++r) fb[r] = pair(b + (lane % 4 * 2 + r * 8) * 8 + lane / 4, 8);
    float d[4] = {1, 1, 1, 1};
    ptx::mma_m16n8k16<fp16>(d, fa, fb[0], fb[1]);
    for (int r = 0; r < 4; ++r) out[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = d[r];
}
)");
    std::mt19937 random(std::random_device{}());
    std::vector<std::uint16_t> a(256), b(128);
    for (auto* values : {&a, &b}) {
        for (std::uint16_t& bits : *values) bits = static_cast<std::uint16_t>(0x3c00 + random() % 4 * 0x100);
    }
    const DeviceArray<std::uint16_t> device_a(a), device_b(b);
    const DeviceArray<float> out(128);
    kernel.run({}, out.data(), device_a.data(), device_b.data());
    const std::vector<float> v = out.values();
    for (unsigned m = 0; m < 16; ++m) {
        for (unsigned n = 0; n < 8; ++n) {
            float sum = 1;
            for (unsigned k = 0; k < 16; ++k) {
                sum += cpu::to_float(cpu::Fp16{a[m * 16 + k]}) * cpu::to_float(cpu::Fp16{b[k * 8 + n]});
            }
            EXPECT_EQ(v[m * 8 + n], sum);
        }
    }
}

bool same(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

TEST(Conversions, AreThoseOfTheCpuBackend) {
    const TestKernel kernel(R"(
#include "ptx/convert.cuh"
using namespace smlora;
extern "C" __global__ void test(float* from_bf16, float* from_fp16, const float* in, unsigned* pairs) {
    const unsigned i = blockIdx.x * 256 + threadIdx.x;
    from_bf16[i] = ptx::float_from_bf16(i);
    from_fp16[i] = ptx::float_from_fp16(i);
    pairs[i * 2] = ptx::bf16x2_from_floats(in[i * 2], in[i * 2 + 1]);
    pairs[i * 2 + 1] = ptx::fp16x2_from_floats(in[i * 2], in[i * 2 + 1]);
}
)");
    constexpr unsigned count = 65536;
    std::mt19937 random(std::random_device{}());
    std::vector<float> in(2 * count);
    for (unsigned i = 0; i < in.size(); ++i) {
        auto bits = static_cast<std::uint32_t>(random());
        // Ties of either format, and numbers of fp16's range, are rare among random bits.
        if (i % 4 == 1) bits = (bits & 0xffff0000U) | 0x8000U;
        if (i % 4 >= 2) bits = (bits & 0x80ffffffU) | (0x33000000U + (bits >> 8 & 0x1f000000U) % 0x15000000U);
        if (i % 8 == 3) bits = (bits & 0xffffe000U) | 0x1000U;
        std::memcpy(&in[i], &bits, 4);
    }
    const DeviceArray<float> from_bf16(count), from_fp16(count), device_in(in);
    const DeviceArray<unsigned> pairs(2 * count);
    kernel.run({count / 256, 256}, from_bf16.data(), from_fp16.data(), device_in.data(), pairs.data());
    const auto bf16 = from_bf16.values(), fp16 = from_fp16.values();
    const auto packed = pairs.values();
    for (unsigned i = 0; i < count; ++i) {
        const auto bits = static_cast<std::uint16_t>(i);
        ASSERT_TRUE(same(bf16[i], cpu::to_float(cpu::Bf16{bits}))) << i;
        ASSERT_TRUE(same(fp16[i], cpu::to_float(cpu::Fp16{bits}))) << i;
        for (unsigned half = 0; half < 2; ++half) {
            const float value = in[i * 2 + half];
            const auto b = static_cast<std::uint16_t>(packed[i * 2] >> (16 * half));
            const auto h = static_cast<std::uint16_t>(packed[i * 2 + 1] >> (16 * half));
            if (std::isnan(value)) {
                ASSERT_EQ(b, 0x7fff);
                ASSERT_EQ(h, 0x7fff);
            } else {
                ASSERT_EQ(b, cpu::to_bf16(value).bits) << value;
                ASSERT_EQ(h, cpu::to_fp16(value).bits) << value;
            }
        }
    }
}

}  // namespace
}  // namespace smlora::emulator
