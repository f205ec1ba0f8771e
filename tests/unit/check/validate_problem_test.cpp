#include <smlora/error.hpp>
#include <smlora/problem.hpp>

#include <gtest/gtest.h>

#include <functional>

namespace smlora {
namespace {

Problem sound() {
    Problem problem;
    problem.E = 8;
    problem.K = 64;
    problem.N = 48;
    problem.R = 4;
    problem.top_k = 2;
    return problem;
}

struct Case {
    const char* message;
    std::function<void(Problem&)> change;
};

TEST(Problem, IsValidAtItsLimits) {
    Problem problem = sound();
    EXPECT_NO_THROW(validate(problem));
    problem.E = 1024;
    problem.K = problem.N = 1;
    problem.R = 256;
    problem.top_k = 64;
    EXPECT_NO_THROW(validate(problem));
    problem.E = problem.top_k = 1;
    problem.R = 0;
    EXPECT_NO_THROW(validate(problem));
    for (DType dtype : {DType::bf16, DType::fp16, DType::fp32, DType::fp64}) {
        problem.dtype = dtype;
        for (DType companion : {dtype, DType::fp32}) {
            problem.adapter_dtype = problem.gate_dtype = companion;
            EXPECT_NO_THROW(validate(problem));
        }
    }
    problem.y_rows = RowOrder::token;
    problem.gates = true;
    EXPECT_NO_THROW(validate(problem));
}

TEST(Problem, NamesTheFieldThatIsWrong) {
    const Case cases[] = {
        {"problem.E: expected 1 to 1024, got 0", [](Problem& p) { p.E = 0; }},
        {"problem.E: expected 1 to 1024, got 1025", [](Problem& p) { p.E = 1025; }},
        {"problem.K: expected 1 to 2147483647, got 0", [](Problem& p) { p.K = 0; }},
        {"problem.K: expected 1 to 2147483647, got 2147483648", [](Problem& p) { p.K = std::int64_t{1} << 31; }},
        {"problem.N: expected 1 to 2147483647, got -5", [](Problem& p) { p.N = -5; }},
        {"problem.R: expected 0 to 256, got 257", [](Problem& p) { p.R = 257; }},
        {"problem.R: expected 0 to 256, got -1", [](Problem& p) { p.R = -1; }},
        {"problem.top_k: expected 1 to 64, got 0", [](Problem& p) { p.top_k = 0; }},
        {"problem.top_k: expected 1 to 64, got 65", [](Problem& p) { p.top_k = 65; }},
        {"problem.dtype: expected bf16, fp16, fp32 or fp64, got int32", [](Problem& p) { p.dtype = DType::int32; }},
        {"problem.dtype: expected bf16, fp16, fp32 or fp64, got the value 10",
         [](Problem& p) { p.dtype = static_cast<DType>(10); }},
        {"problem.adapter_dtype: expected bf16 (problem.dtype) or fp32, got fp16",
         [](Problem& p) { p.adapter_dtype = DType::fp16; }},
        {"problem.adapter_dtype: expected fp32 (problem.dtype), got bf16", [](Problem& p) { p.dtype = DType::fp32; }},
        {"problem.gate_dtype: expected bf16 (problem.dtype) or fp32, got int64",
         [](Problem& p) { p.gate_dtype = DType::int64; }},
        {"problem.index_dtype: expected int32 or int64, got fp32", [](Problem& p) { p.index_dtype = DType::fp32; }},
        {"problem.weight_layout: expected ekn or enk, got the value 2",
         [](Problem& p) { p.weight_layout = static_cast<WeightLayout>(2); }},
        {"problem.x_rows: expected token, scattered or grouped, got the value 3",
         [](Problem& p) { p.x_rows = static_cast<RowOrder>(3); }},
        {"problem.y_rows: expected token, scattered or grouped, got the value -1",
         [](Problem& p) { p.y_rows = static_cast<RowOrder>(-1); }},
        {"problem.gates: expected false unless problem.y_rows is token, got true with y_rows = scattered",
         [](Problem& p) { p.gates = true; }},
        {"encoding: expected a value from 0 to 8, got 9",
         [](Problem& p) { p.weights.encoding = static_cast<Encoding>(9); }},
        {"problem.weights.block: expected a power of two from 32 to 4096 for nf4, got 0",
         [](Problem& p) { p.weights.encoding = Encoding::nf4; }},
        {"problem.weights.scales: expected fp32, got uint8",
         [](Problem& p) {
             p.weights = usual_format(Encoding::nf4);
             p.weights.scales = DType::uint8;
         }},
        {"problem.weights.scales: expected uint8, got fp32",
         [](Problem& p) {
             p.weights = usual_format(Encoding::nf4);
             p.weights.outer_block = 256;
         }},
        {"problem.weights.outer_block: expected 0 for fp8, got 256",
         [](Problem& p) {
             p.weights = usual_format(Encoding::fp8);
             p.weights.outer_block = 256;
         }},
        {"problem.weights.outer_block: expected 0 or more, got -1",
         [](Problem& p) {
             p.weights = usual_format(Encoding::fp4);
             p.weights.outer_block = -1;
         }},
        {"problem.weights.block: expected a divisor of columns = 48, got 32",
         [](Problem& p) { p.weights = usual_format(Encoding::mxfp4); }},
        {"problem.weights.parts: expected a divisor of rows = 64, got 3",
         [](Problem& p) {
             p.weights = usual_format(Encoding::nvfp4);
             p.weights.parts = 3;
         }},
        {"problem.weights.encoding: expected one whose scales can be arranged (mxfp4, mxfp8, nvfp4, int4, nf4, fp4 or "
         "fp8), got int8",
         [](Problem& p) {
             p.weights = usual_format(Encoding::int8);
             p.weights.arranged = true;
         }},
        {"problem.weights.block: expected a multiple of 64 to arrange scales of nf4, got 32",
         [](Problem& p) { p.weights = {.encoding = Encoding::nf4, .block = 32, .arranged = true}; }},
        {"problem.weights.global_scale: expected factor or divisor, got the value 2",
         [](Problem& p) {
             p.weights = usual_format(Encoding::nvfp4);
             p.weights.global_scale = static_cast<GlobalScale>(2);
         }},
        {"problem.dtype: expected bf16, fp16 or fp32 with quantised weights, got fp64",
         [](Problem& p) {
             p.weights = usual_format(Encoding::int8);
             p.dtype = p.adapter_dtype = DType::fp64;
         }},
    };
    for (const Case& wrong : cases) {
        Problem problem = sound();
        wrong.change(problem);
        try {
            validate(problem);
            ADD_FAILURE() << "not refused: " << wrong.message;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            EXPECT_STREQ(error.what(), wrong.message);
        }
    }
}

TEST(Problem, IsWrittenInOneLine) {
    Problem problem = sound();
    EXPECT_EQ(to_string(problem), "E8 K64 N48 R4 k2 bf16 ekn token->scattered");
    problem.adapter_dtype = DType::fp32;
    problem.weight_layout = WeightLayout::enk;
    problem.x_rows = RowOrder::grouped;
    problem.y_rows = RowOrder::token;
    problem.gates = problem.bias = true;
    problem.index_dtype = DType::int64;
    EXPECT_EQ(to_string(problem), "E8 K64 N48 R4 k2 bf16 enk grouped->token adapter:fp32 bias gates:fp32 index:int64");
    problem = sound();
    problem.weights = usual_format(Encoding::nf4);
    EXPECT_EQ(to_string(problem), "E8 K64 N48 R4 k2 bf16 ekn token->scattered weights: nf4 block 64");
}

TEST(WeightFormat, IsWrittenInOneLine) {
    EXPECT_EQ(to_string(WeightFormat{}), "plain");
    EXPECT_EQ(to_string(usual_format(Encoding::int8)), "int8");
    EXPECT_EQ(to_string(usual_format(Encoding::mxfp4)), "mxfp4 block 32");
    WeightFormat format = usual_format(Encoding::nf4);
    format.scales = DType::uint8;
    format.outer_block = 256;
    EXPECT_EQ(to_string(format), "nf4 block 64 double 256");
    format = usual_format(Encoding::fp8);
    format.scales = DType::bf16;
    format.parts = 2;
    EXPECT_EQ(to_string(format), "fp8 block 128 bf16 parts 2");
    format = usual_format(Encoding::nvfp4);
    format.global_scale = GlobalScale::divisor;
    EXPECT_EQ(to_string(format), "nvfp4 block 16 divisor");
    EXPECT_THROW(static_cast<void>(usual_format(static_cast<Encoding>(9))), Error);
}

TEST(WeightFormat, OfEveryEncodingIsSound) {
    for (std::int32_t encoding = 0; encoding <= 8; ++encoding) {
        Problem problem = sound();
        problem.K = problem.N = 128;
        problem.weights = usual_format(static_cast<Encoding>(encoding));
        EXPECT_NO_THROW(validate(problem)) << to_string(problem);
    }
}

TEST(Problem, PadsTheRankToEight) {
    Problem problem = sound();
    for (const auto& [rank, padded] : {std::pair{0, 0}, {1, 8}, {8, 8}, {9, 16}, {256, 256}}) {
        problem.R = rank;
        EXPECT_EQ(padded_rank(problem), padded);
    }
}

}  // namespace
}  // namespace smlora
