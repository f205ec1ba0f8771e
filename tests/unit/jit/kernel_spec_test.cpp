#include "jit/kernel_spec.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace smlora::jit {
namespace {

KernelSpec example() {
    KernelSpec spec;
    spec.family = "grouped_product";
    spec.constants = {{"E", 128}, {"Element", "smlora::bf16"}, {"BYTES", std::int64_t{1} << 32}, {"LOW", -1}};
    spec.threads = 256;
    spec.min_blocks = 2;
    spec.dynamic_shared = 65536;
    return spec;
}

TEST(KernelSpec, SourceIsOneIncludeTheConstantsAndOneKernel) {
    EXPECT_EQ(source(example()), R"(#include "grouped_product.cuh"

struct Constants {
    static constexpr int E = 128;
    using Element = smlora::bf16;
    static constexpr long long BYTES = 4294967296LL;
    static constexpr int LOW = -1;
};

extern "C" __global__ void __launch_bounds__(256, 2) smlora_grouped_product(const __grid_constant__ smlora::grouped_product::Args args) {
    smlora::grouped_product::run<Constants>(args);
}
)");
}

TEST(KernelSpec, SourceIsDeterministic) { EXPECT_EQ(source(example()), source(example())); }

TEST(KernelSpec, ConstantsAreLongLongOnlyWhenTheyMustBe) {
    constexpr std::int64_t int_max = std::numeric_limits<std::int32_t>::max();
    constexpr std::int64_t int_min = std::numeric_limits<std::int32_t>::min();
    KernelSpec spec;
    spec.family = "f";
    spec.constants = {{"A", int_max},
                      {"B", int_max + 1},
                      {"C", int_min},
                      {"D", int_min - 1},
                      {"LEAST", std::numeric_limits<std::int64_t>::min()}};
    const std::string text = source(spec);
    for (const char* line : {"static constexpr int A = 2147483647;", "static constexpr long long B = 2147483648LL;",
                             "static constexpr int C = -2147483648;", "static constexpr long long D = -2147483649LL;",
                             "static constexpr long long LEAST = -9223372036854775807LL - 1;"}) {
        EXPECT_NE(text.find(line), std::string::npos) << line << "\nin\n" << text;
    }
}

TEST(KernelSpec, SourceChangesWithEveryConstantAndBound) {
    const std::string base = source(example());
    KernelSpec other = example();
    other.constants[0].integer = 127;
    EXPECT_NE(source(other), base);
    other = example();
    other.constants[1].type = "smlora::fp16";
    EXPECT_NE(source(other), base);
    other = example();
    other.threads = 128;
    EXPECT_NE(source(other), base);
    other = example();
    other.min_blocks = 1;
    EXPECT_NE(source(other), base);
}

TEST(KernelSpec, SymbolAndReadableNameTheFamily) {
    EXPECT_EQ(symbol(example()), "smlora_grouped_product");
    EXPECT_EQ(readable(example()), "grouped_product E=128 Element=bf16 BYTES=4294967296 LOW=-1");
}

}  // namespace
}  // namespace smlora::jit
