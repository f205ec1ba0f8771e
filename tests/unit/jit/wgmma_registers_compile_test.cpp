// wgmma with fragments in registers compiles in every width, and in a loop that keeps a group in flight.
#include "jit/compile_options.hpp"
#include "jit/nvrtc.hpp"
#include "jit/ptxas_report.hpp"
#include "jit/templates.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

namespace smlora::jit {
namespace {

/// Steps of two instructions, with `between` the two; the fragments of the next step are made while they run.
std::string source(const char* element, int major, const char* between) {
    std::string text = fmt::format(R"(
#include "ptx/wgmma_registers.cuh"
using namespace smlora;
__device__ __forceinline__ void make(uint32 (&a)[2][4], const uint32* codes) {{
#pragma unroll
    for (int k = 0; k < 2; ++k) {{
#pragma unroll
        for (int i = 0; i < 4; ++i) a[k][i] = (codes[k] >> i * 4 & 0x000f000fU) | 0x43004300U;
    }}
}}
template <int N>
__device__ __forceinline__ void multiply(float* out, const uint32* codes, int steps, uint64 b) {{
    codes += threadIdx.x * 2;
    float d[N / 2] = {{}};
    uint32 a[2][2][4];
    make(a[0], codes);
    int step = 0;
#pragma unroll 1
    do {{
#pragma unroll
        for (int half = 0; half < 2; ++half) {{
            uint32 (&now)[2][4] = a[half];
            uint32 (&next)[2][4] = a[1 - half];
            ptx::wgmma_fence();
            ptx::WgmmaOfRegisters<{0}, N, {1}>::run(d, now[0], b);
            {2}
            ptx::WgmmaOfRegisters<{0}, N, {1}>::run(d, now[1], b + 2);
            ptx::wgmma_commit();
            ptx::wgmma_wait<1>();
            make(next, codes + (step + half + 1) * 256);
        }}
        step += 2;
    }} while (step < steps);
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(d);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) out[i * 128 + threadIdx.x] = d[i];
}}
)",
                                   element, major, between);
    for (int n = 8; n <= 160; n += 8) {
        text += fmt::format(
            "extern \"C\" __global__ void __launch_bounds__(128) test_{0}(float* out, const uint32* codes, int steps, "
            "uint64 b) {{ multiply<{0}>(out, codes, steps, b); }}\n",
            n);
    }
    return text;
}

std::string log_of(const std::string& source) {
    const Nvrtc& nvrtc = Nvrtc::instance();
    const auto options = compile_options(gpu::arch_from_name("sm_90a"), nvrtc.version());
    return nvrtc.compile({source, Templates::embedded().closure("ptx/wgmma_registers.cuh"), options}, "test").log;
}

TEST(WgmmaRegistersCompile, EveryWidthTypeAndMajorWithAGroupInFlight) {
    for (const char* element : {"bf16", "fp16"}) {
        for (const int major : {0, 1}) {
            SCOPED_TRACE(fmt::format("{}, major {}", element, major));
            const std::string log = log_of(source(element, major, ""));
            EXPECT_EQ(serialization_notes(log), std::vector<std::string>());
            EXPECT_EQ(resource_use(log).spill_bytes(), 0);
        }
    }
}

TEST(WgmmaRegistersCompile, AFragmentThatIsMadeBehindTheFenceIsNoted) {
    EXPECT_FALSE(serialization_notes(log_of(source("bf16", 0, "make(now, codes + step);"))).empty());
}

}  // namespace
}  // namespace smlora::jit
