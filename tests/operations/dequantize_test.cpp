// dequantize on each backend against the CPU's decoding, which golden vectors check: bit by bit.
#include "support/backend.hpp"
#include "workload/array.hpp"
#include "workload/encoded.hpp"

#include <smlora/error.hpp>
#include <smlora/weight.hpp>

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace smlora::test {
namespace {

using workload::Array;
using workload::EncodedShape;
using workload::EncodedWeight;

/// Every encoding with every type of scale, and shapes that are no multiple of anything.
std::vector<EncodedShape> shapes() {
    return {
        {.encoding = Encoding::nf4, .E = 3, .rows = 20, .columns = 128},
        {.encoding = Encoding::nf4, .E = 2, .rows = 9, .columns = 96, .block = 4096},
        {.encoding = Encoding::nf4, .E = 3, .rows = 5, .columns = 7, .block = 32},
        {.encoding = Encoding::nf4, .E = 5, .rows = 40, .columns = 704, .double_quantized = 256},
        {.encoding = Encoding::fp4, .E = 1, .rows = 3, .columns = 33, .double_quantized = 3},
        {.encoding = Encoding::fp4, .E = 2, .rows = 8, .columns = 2048, .block = 128},
        {.encoding = Encoding::int8, .E = 3, .rows = 11, .columns = 80},
        {.encoding = Encoding::int8, .E = 2, .rows = 3, .columns = 13},
        {.encoding = Encoding::mxfp4, .E = 3, .rows = 17, .columns = 96, .scales = DType::uint8},
        {.encoding = Encoding::mxfp4, .E = 2, .rows = 64, .columns = 2880, .scales = DType::e8m0},
        {.encoding = Encoding::mxfp8, .E = 3, .rows = 17, .columns = 96, .scales = DType::uint8},
        {.encoding = Encoding::mxfp8, .E = 2, .rows = 33, .columns = 64, .scales = DType::e8m0},
        {.encoding = Encoding::fp8, .E = 2, .rows = 160, .columns = 320},
        {.encoding = Encoding::fp8, .E = 2, .rows = 384, .columns = 96, .parts = 2, .scales = DType::bf16},
        {.encoding = Encoding::fp8, .E = 3, .rows = 10, .columns = 21, .block = 4, .scales = DType::e8m0},
        {.encoding = Encoding::fp8, .E = 2, .rows = 10, .columns = 24, .block = (std::int64_t{1} << 31) - 1},
        {.encoding = Encoding::fp8, .E = 2, .rows = 10, .columns = 24, .block = std::int64_t{1} << 31},
        {.encoding = Encoding::nvfp4, .E = 3, .rows = 20, .columns = 80},
        {.encoding = Encoding::nvfp4,
         .E = 2,
         .rows = 48,
         .columns = 256,
         .parts = 2,
         .global_scale = GlobalScale::divisor},
        {.encoding = Encoding::int4, .E = 3, .rows = 20, .columns = 96, .scales = DType::bf16},
        {.encoding = Encoding::int4, .E = 2, .rows = 8, .columns = 256, .block = 128, .scales = DType::fp16},
        {.encoding = Encoding::int4, .E = 2, .rows = 5, .columns = 18, .block = 6, .scales = DType::fp32},
    };
}

std::string text_of(const EncodedShape& shape) {
    return fmt::format("{} {}x{}x{} block {}", name(shape.encoding), shape.E, shape.rows, shape.columns, shape.block);
}

/// NaN for NaN, whatever its payload; everything else bit by bit, the sign of zeros too.
void expect_same(const Array& result, const Array& expected) {
    ASSERT_EQ(result.numel(), expected.numel());
    int wrong = 0;
    for (std::int64_t i = 0; i < result.numel(); ++i) {
        const double got = result.at(i), wanted = expected.at(i);
        const bool same =
            std::isnan(wanted) ? std::isnan(got) : got == wanted && std::signbit(got) == std::signbit(wanted);
        if (!same && ++wrong <= 5) ADD_FAILURE() << "element " << i << ": " << got << " instead of " << wanted;
    }
    EXPECT_EQ(wrong, 0);
}

class Dequantize : public OnEachBackend {};

TEST_P(Dequantize, HasTheBitsOfTheCpuAndLeavesTheWeightAsItIs) {
    // Each shape to one of the types, which the kernels and the rounding do not tell apart otherwise.
    constexpr DType types[] = {DType::bf16, DType::fp16, DType::fp32};
    std::size_t turn = 0;
    for (const EncodedShape& shape : shapes()) {
        const DType dtype = types[turn++ % 3];
        SCOPED_TRACE(fmt::format("{} to {}", text_of(shape), name(dtype)));
        const EncodedWeight weight(engine(), shape, fresh(text_of(shape)));
        Array out(engine(), dtype, {{shape.E, shape.rows, shape.columns}});
        Array expected(engine_of(Backend::cpu), dtype, {{shape.E, shape.rows, shape.columns}});
        dequantize(engine(), {}, {weight.weight(), out.view()});
        synchronize(engine(), {});
        dequantize(engine_of(Backend::cpu), {}, {weight.on_host(), expected.view()});
        out.download();
        expected.download();
        expect_same(out, expected);
        EXPECT_TRUE(out.untouched_outside());
        EXPECT_TRUE(weight.is_unchanged());
    }
}

TEST_P(Dequantize, AnyAlignmentGivesTheSame) {
    const EncodedShape shape{.encoding = Encoding::mxfp4, .E = 2, .rows = 8, .columns = 64, .scales = DType::uint8};
    const EncodedWeight weight(engine(), shape, fresh("alignment"));
    Array aligned(engine(), DType::bf16, {{2, 8, 64}});
    Array shifted(engine(), DType::bf16, {.shape = {2, 8, 64}, .shift = 1});
    dequantize(engine(), {}, {weight.weight(), aligned.view()});
    dequantize(engine(), {}, {weight.weight(), shifted.view()});
    synchronize(engine(), {});
    aligned.download();
    shifted.download();
    expect_same(shifted, aligned);
    EXPECT_TRUE(shifted.untouched_outside());
}

TEST_P(Dequantize, RefusesAPlainWeight) {
    Array values(engine(), DType::bf16, {{2, 4, 8}});
    Array out(engine(), DType::bf16, {{2, 4, 8}});
    try {
        dequantize(engine(), {}, {values.view(), out.view()});
        ADD_FAILURE();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
        EXPECT_STREQ(error.what(), "W.encoding: expected one that is quantised, got plain");
    }
}

SMLORA_ON_EACH_BACKEND(Backends, Dequantize);

}  // namespace
}  // namespace smlora::test
