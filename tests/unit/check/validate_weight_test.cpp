// Every check of a weight: one that is sound but for one thing, and what is said of it.
#include "unit/check/validate_calls.hpp"

#include <smlora/weight.hpp>

namespace smlora::check::test {
namespace {

/// Of an encoding, [2, 6, 64].
template <Encoding encoding>
struct Dequantize {
    DequantizeArgs args = sound();
    void validate() const { validate_dequantize(args); }

    static DequantizeArgs sound() {
        Weight w;
        w.encoding = encoding;
        w.E = 2;
        w.rows = 6;
        w.columns = 64;
        switch (encoding) {
            case Encoding::nf4:
                w.block = 32;
                w.codes = tensor(DType::uint8, {384, 1});
                w.scales = tensor(DType::uint8, {24});
                w.table = tensor(DType::fp32, {16});
                w.double_quantization = {tensor(DType::fp32, {2}), tensor(DType::fp32, {256}), tensor(DType::fp32, {1}),
                                         20};
                break;
            case Encoding::fp4:
                w.block = 512;
                w.codes = tensor(DType::uint8, {384});
                w.scales = tensor(DType::fp32, {2});
                w.table = tensor(DType::fp32, {16});
                break;
            case Encoding::int8:
                w.codes = tensor(DType::int8, {2, 6, 64});
                w.scales = tensor(DType::fp32, {2, 6});
                break;
            case Encoding::mxfp4:
                w.block = 32;
                w.codes = tensor(DType::uint8, {2, 6, 2, 16});
                w.scales = tensor(DType::uint8, {2, 6, 2});
                break;
            case Encoding::fp8:
                w.block = 128;
                w.parts = 2;
                w.codes = tensor(DType::e4m3, {2, 6, 64});
                w.scales = tensor(DType::fp32, {2, 2, 1});
                break;
            case Encoding::mxfp8:
                w.block = 32;
                w.codes = tensor(DType::e4m3, {2, 6, 64});
                w.scales = tensor(DType::e8m0, {2, 6, 2});
                break;
            case Encoding::nvfp4:
                w.block = 16;
                w.parts = 2;
                w.codes = tensor(DType::uint8, {2, 6, 32});
                w.scales = tensor(DType::e4m3, {2, 6, 4});
                w.global_scales = strided(DType::fp32, {2, 2}, {0, 0});
                break;
            case Encoding::int4:
                w.block = 32;
                w.codes = tensor(DType::int32, {2, 6, 8});
                w.scales = tensor(DType::bf16, {2, 6, 2});
                break;
            case Encoding::plain:
                w.codes = tensor(DType::bf16, {2, 6, 64});
                break;
        }
        return {w, tensor(DType::bf16, {2, 6, 64})};
    }
};

template <Encoding encoding>
void expect_sound() {
    using Call = Dequantize<encoding>;
    EXPECT_NO_THROW(Call().validate());
    expect_refused<Call>({
        {"W.E: expected 1 to 2147483647, got 0", [](Call& c) { c.args.W.E = 0; }},
        {"W.rows: expected 1 to 2147483647, got -6", [](Call& c) { c.args.W.rows = -6; }},
        {"W.columns: expected 1 to 2147483647, got 0", [](Call& c) { c.args.W.columns = 0; }},
        {"W.rows: expected 1 to 2147483647, got 4294967302",
         [](Call& c) { c.args.W.rows = 6 + (std::int64_t{1} << 32); }},
        {"W: expected E rows columns below 2^63, got 2147483647 2147483647 64",
         [](Call& c) { c.args.W.E = c.args.W.rows = 2147483647; }},
        {"W.parts: expected a divisor of rows = 6, got 4", [](Call& c) { c.args.W.parts = 4; }},
        {"W.parts: expected a divisor of rows = 6, got 0", [](Call& c) { c.args.W.parts = 0; }},
        {"out: expected bf16 or fp16 or fp32, not given", [](Call& c) { c.args.out = {}; }},
        {"out: expected bf16 or fp16 or fp32, got fp64",
         [](Call& c) {
             c.args.out = tensor(DType::fp64, {2, 6, 64});
         }},
        {"out: expected [E, rows, columns] = [2, 6, 64], got [2, 64, 6]",
         [](Call& c) {
             c.args.out = tensor(DType::bf16, {2, 64, 6});
         }},
    });
    Call one_memory;
    one_memory.args.out.data = one_memory.args.W.codes.data;
    EXPECT_THROW(one_memory.validate(), Error);
}

TEST(ValidateWeight, EveryEncodingIsTakenAndItsExtentsAreChecked) {
    expect_sound<Encoding::nf4>();
    expect_sound<Encoding::fp4>();
    expect_sound<Encoding::int8>();
    expect_sound<Encoding::mxfp4>();
    expect_sound<Encoding::fp8>();
    expect_sound<Encoding::mxfp8>();
    expect_sound<Encoding::nvfp4>();
    expect_sound<Encoding::int4>();
}

TEST(ValidateWeight, PlainAndUnknownEncodingsAreNamed) {
    using Call = Dequantize<Encoding::plain>;
    expect_refused<Call>({{"W.encoding: expected one that is quantised, got plain", [](Call&) {}},
                          {"encoding: expected a value from 0 to 8, got 9",
                           [](Call& c) { c.args.W.encoding = static_cast<Encoding>(9); }}});
}

TEST(ValidateWeight, Bitsandbytes) {
    using Call = Dequantize<Encoding::nf4>;
    expect_refused<Call>({
        {"W.block: expected a power of two from 32 to 4096 for nf4, got 96", [](Call& c) { c.args.W.block = 96; }},
        {"W.block: expected a power of two from 32 to 4096 for nf4, got 8192", [](Call& c) { c.args.W.block = 8192; }},
        {"W.codes: expected uint8, not given", [](Call& c) { c.args.W.codes = {}; }},
        {"W.codes: expected uint8, got int8", [](Call& c) { c.args.W.codes.dtype = DType::int8; }},
        {"W.codes: expected ceil(E rows columns / 2) = 384 elements, got 383",
         [](Call& c) { c.args.W.codes = tensor(DType::uint8, {383}); }},
        {"W.codes: expected a contiguous tensor, got strides [2] for shape [384]",
         [](Call& c) { c.args.W.codes = strided(DType::uint8, {384}, {2}); }},
        {"W.scales: expected uint8, got fp32", [](Call& c) { c.args.W.scales = tensor(DType::fp32, {24}); }},
        {"W.scales: expected fp32, got uint8", [](Call& c) { c.args.W.double_quantization = {}; }},
        {"W.scales: expected ceil(E rows columns / block) = 24 elements, got 25",
         [](Call& c) { c.args.W.scales = tensor(DType::uint8, {25}); }},
        {"W.table: expected [16] = [16] of fp32, not given", [](Call& c) { c.args.W.table = {}; }},
        {"W.double_quantization.block: expected 1 or more, got 0",
         [](Call& c) { c.args.W.double_quantization.block = 0; }},
        {"W.double_quantization.scales: expected ceil(scales / block) = 2 elements, got 3",
         [](Call& c) { c.args.W.double_quantization.scales = tensor(DType::fp32, {3}); }},
        {"W.double_quantization.table: expected [256] = [256], got [16]",
         [](Call& c) { c.args.W.double_quantization.table = tensor(DType::fp32, {16}); }},
        {"W.double_quantization.offset: expected fp32, not given",
         [](Call& c) { c.args.W.double_quantization.offset = {}; }},
        {"W.global_scales: expected not to be given with encoding nf4, got shape [2, 1]",
         [](Call& c) {
             c.args.W.global_scales = tensor(DType::fp32, {2, 1});
         }},
    });
}

TEST(ValidateWeight, ScalesInBlocksOfARow) {
    using Int8 = Dequantize<Encoding::int8>;
    expect_refused<Int8>({
        {"W.codes: expected int8, got uint8", [](Int8& c) { c.args.W.codes.dtype = DType::uint8; }},
        {"W.scales: expected [E, rows] = [2, 6], got [12]",
         [](Int8& c) { c.args.W.scales = tensor(DType::fp32, {12}); }},
        {"W.table: expected not to be given with encoding int8, got shape [16]",
         [](Int8& c) { c.args.W.table = tensor(DType::fp32, {16}); }},
    });
    using Mxfp4 = Dequantize<Encoding::mxfp4>;
    expect_refused<Mxfp4>({
        {"W.block: expected 32 for mxfp4, got 16", [](Mxfp4& c) { c.args.W.block = 16; }},
        {"W.block: expected a divisor of columns = 48, got 32", [](Mxfp4& c) { c.args.W.columns = 48; }},
        {"W.codes: expected uint8 or int8, got e4m3", [](Mxfp4& c) { c.args.W.codes.dtype = DType::e4m3; }},
        {"W.codes: expected [E, rows, columns / 32, 16] = [2, 6, 2, 16], got [2, 6, 16, 2]",
         [](Mxfp4& c) {
             c.args.W.codes = tensor(DType::uint8, {2, 6, 16, 2});
         }},
        {"W.codes: expected [E, rows, columns / 2] = [2, 6, 32], got [2, 6, 64]",
         [](Mxfp4& c) {
             c.args.W.codes = tensor(DType::int8, {2, 6, 64});
         }},
        {"W.scales: expected uint8 or e8m0, got e4m3", [](Mxfp4& c) { c.args.W.scales.dtype = DType::e4m3; }},
        {"W.scales: expected [E, rows, columns / block] = [2, 6, 2], got [2, 6, 4]",
         [](Mxfp4& c) {
             c.args.W.scales = tensor(DType::e8m0, {2, 6, 4});
         }},
        {"W.scales: expected [E, rows rounded up to 256 / 64, columns rounded up to 256 / 64, elements for 64 x 64 values] = [2, 4, 4, 128], "
         "got "
         "[2, 1, 1, 128]",
         [](Mxfp4& c) {
             c.args.W.scales = tensor(DType::e8m0, {2, 1, 1, 128});
         }},
    });
    using Int4 = Dequantize<Encoding::int4>;
    expect_refused<Int4>({
        {"W.block: expected an even number above 0 for int4, got 3", [](Int4& c) { c.args.W.block = 3; }},
        {"W.block: expected a divisor of columns = 64, got 48", [](Int4& c) { c.args.W.block = 48; }},
        {"W.codes: expected [E, rows, columns / 8] = [2, 6, 8], got [2, 6, 32]",
         [](Int4& c) {
             c.args.W.codes = tensor(DType::int32, {2, 6, 32});
         }},
        {"W.columns: expected a multiple of 8 for codes of int32, got 36",
         [](Int4& c) {
             c.args.W.columns = 36;
             c.args.W.block = 12;
         }},
        {"W.scales: expected bf16 or fp16 or fp32, got e8m0", [](Int4& c) { c.args.W.scales.dtype = DType::e8m0; }},
    });
}

TEST(ValidateWeight, ScalesOfSquaresAndOfExperts) {
    using Fp8 = Dequantize<Encoding::fp8>;
    expect_refused<Fp8>({
        {"W.block: expected 1 or more for fp8, got 0", [](Fp8& c) { c.args.W.block = 0; }},
        {"W.scales: expected [E, parts ceil(rows / parts / block), ceil(columns / block)] = [2, 1, 1], got "
         "[2, 2, 1]",
         [](Fp8& c) { c.args.W.parts = 1; }},
        {"W.scales: expected fp32 or bf16 or e8m0, got uint8", [](Fp8& c) { c.args.W.scales.dtype = DType::uint8; }},
    });
    using Nvfp4 = Dequantize<Encoding::nvfp4>;
    expect_refused<Nvfp4>({
        {"W.block: expected 16 for nvfp4, got 32", [](Nvfp4& c) { c.args.W.block = 32; }},
        {"W.global_scales: expected [E, parts] = [2, 3], got [2, 2]", [](Nvfp4& c) { c.args.W.parts = 3; }},
        {"W.global_scales: expected [E, parts] = [2, 2] of fp32, not given",
         [](Nvfp4& c) { c.args.W.global_scales = {}; }},
        {"W.global_scale: expected factor or divisor, got the value 2",
         [](Nvfp4& c) { c.args.W.global_scale = static_cast<GlobalScale>(2); }},
    });
}

/// A forward pass whose weight is sound: mxfp4 [4, 24 = K, 64 = N].
struct QuantisedForward : Forward {
    QuantisedForward() {
        problem.N = 64;
        problem.weights = usual_format(Encoding::mxfp4);
        args.W = Weight();
        args.W.encoding = Encoding::mxfp4;
        args.W.E = E;
        args.W.rows = K;
        args.W.columns = 64;
        args.W.block = 32;
        args.W.codes = tensor(DType::uint8, {E, K, 32});
        args.W.scales = tensor(DType::e8m0, {E, K, 2});
        args.B = tensor(DType::fp32, {E, 64, R});
        args.bias = tensor(DType::fp16, {E, 64});
        args.y = tensor(DType::fp16, {T, 64});
    }
};

TEST(ValidateWeight, OfAProjectionIsThatOfTheProblem) {
    using Call = QuantisedForward;
    EXPECT_NO_THROW(Call().validate());
    expect_refused<Call>({
        {"W: expected plain (problem.weights), got mxfp4 block 32", [](Call& c) { c.problem.weights = {}; }},
        {"W: expected mxfp4 block 32 (problem.weights), got plain",
         [](Call& c) {
             c.args.W = tensor(DType::fp16, {E, K, 64});
         }},
        {"W.scales: expected e8m0 (problem.weights.scales), got uint8",
         [](Call& c) { c.args.W.scales.dtype = DType::uint8; }},
        {"W.scales: expected uint8 or e8m0, not given", [](Call& c) { c.args.W.scales = {}; }},
        {"W.E: expected E = 4 (problem), got 5", [](Call& c) { c.args.W.E = 5; }},
        {"W.rows: expected K = 24 (problem), got 25", [](Call& c) { c.args.W.rows = 25; }},
        {"W.columns: expected N = 64 (problem), got 96", [](Call& c) { c.args.W.columns = 96; }},
        {"W.scales: expected [E, rows, columns / block] = [4, 24, 2], got [4, 24, 4]",
         [](Call& c) {
             c.args.W.scales = tensor(DType::e8m0, {E, K, 4});
         }},
    });
    for (const auto member : {&Weight::codes, &Weight::scales}) {
        Call one_memory;
        one_memory.args.y.data = (one_memory.args.W.*member).data;
        EXPECT_THROW(one_memory.validate(), Error);
    }
}

}  // namespace
}  // namespace smlora::check::test
