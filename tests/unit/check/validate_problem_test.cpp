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
