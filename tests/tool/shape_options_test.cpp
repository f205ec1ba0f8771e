// From the options of the command line to problems.
#include "smlora_tune/shape_options.hpp"

#include "smlora_tune/exit_code.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace smlora::tool {
namespace {

std::string error_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const UsageError& error) {
        return error.what();
    }
    return "no error";
}

std::string error_of(const ShapeOptions& options, Backend backend = Backend::cuda) {
    return error_of([&] { (void)resolve(options, backend); });
}

TEST(Shape, IsFiveNumbers) {
    const Problem problem = parse_shape("128,2048,1536,16,8");
    EXPECT_EQ(problem.E, 128);
    EXPECT_EQ(problem.K, 2048);
    EXPECT_EQ(problem.N, 1536);
    EXPECT_EQ(problem.R, 16);
    EXPECT_EQ(problem.top_k, 8);
    EXPECT_EQ(problem.dtype, DType::bf16);
    EXPECT_EQ(problem.weight_layout, WeightLayout::ekn);
    EXPECT_EQ(problem.x_rows, RowOrder::token);
    EXPECT_EQ(problem.y_rows, RowOrder::scattered);
}

TEST(Shape, AnythingElseIsAnErrorThatShowsIt) {
    for (const char* text :
         {"", "128", "128,2048,1536,16", "128,2048,1536,16,8,2", "128,2048,1536,16,8 ", "a,b,c,d,e",
          "128;2048;1536;16;8", "128,,1536,16,8", "1e3,2048,1536,16,8", "99999999999999999999,1,1,1,1"}) {
        const std::string message = error_of([&] { (void)parse_shape(text); });
        EXPECT_NE(message.find(std::string("got '") + text + "'"), std::string::npos) << message;
        EXPECT_NE(message.find("E,K,N,R,top_k"), std::string::npos) << message;
    }
}

TEST(Resolve, NeedsSomethingToWorkOn) { EXPECT_NE(error_of(ShapeOptions()).find("--shape"), std::string::npos); }

TEST(Resolve, TakesShapesModelsAndConfigsInThatOrder) {
    ShapeOptions options;
    options.shapes = {"8,64,32,4,2"};
    options.models = {"olmoe", "Mixtral-8x7B"};
    const auto problems = resolve(options, Backend::cuda);
    ASSERT_EQ(problems.size(), 5U);
    EXPECT_EQ(problems[0].name, to_string(problems[0].problem));
    EXPECT_EQ(problems[1].name, "olmoe gate_up");
    EXPECT_EQ(problems[1].problem.R, 16);
    EXPECT_EQ(problems[4].name, "mixtral-8x7b down");
}

TEST(Resolve, OptionsOverrideWhatAModelSays) {
    ShapeOptions options;
    options.models = {"qwen3-30b-a3b"};
    options.projection = "down";
    options.rank = 64;
    options.dtype = "fp16";
    options.adapter_dtype = "fp32";
    options.gate_dtype = "fp16";
    options.index_dtype = "int64";
    options.weight_layout = "ekn";
    options.bias = true;
    const auto problems = resolve(options, Backend::cuda);
    ASSERT_EQ(problems.size(), 1U);
    const Problem& problem = problems[0].problem;
    EXPECT_EQ(problem.R, 64);
    EXPECT_EQ(problem.dtype, DType::fp16);
    EXPECT_EQ(problem.adapter_dtype, DType::fp32);
    EXPECT_EQ(problem.gate_dtype, DType::fp16);
    EXPECT_EQ(problem.index_dtype, DType::int64);
    EXPECT_EQ(problem.weight_layout, WeightLayout::ekn);
    EXPECT_TRUE(problem.bias);
    EXPECT_TRUE(problem.gates);
}

TEST(Resolve, AdapterFollowsTheDtypeUnlessSaid) {
    ShapeOptions options;
    options.shapes = {"8,64,32,4,2"};
    options.dtype = "fp32";
    EXPECT_EQ(resolve(options, Backend::cuda)[0].problem.adapter_dtype, DType::fp32);
}

TEST(Resolve, OtherRowsOfYHaveNoGates) {
    ShapeOptions options;
    options.models = {"olmoe"};
    options.projection = "down";
    options.y_rows = "scattered";
    EXPECT_FALSE(resolve(options, Backend::cuda)[0].problem.gates);
}

TEST(Resolve, Fp64IsForTheCpu) {
    ShapeOptions options;
    options.shapes = {"8,64,32,4,2"};
    options.dtype = "fp64";
    EXPECT_EQ(error_of(options), "--dtype: fp64 is for the CPU backend; expected bf16, fp16 or fp32");
    options.has_device = true;
    EXPECT_NE(error_of(options).find("--device cpu"), std::string::npos);
    EXPECT_EQ(resolve(options, Backend::cpu)[0].problem.dtype, DType::fp64);
}

TEST(Resolve, WhatTheLibraryRefusesIsAUsageError) {
    ShapeOptions options;
    options.shapes = {"8,64,32,300,2"};
    EXPECT_NE(error_of(options).find("300"), std::string::npos);
    options.shapes = {"8,64,32,4,2"};
    options.gates = true;  // y is scattered
    EXPECT_NE(error_of(options), "no error");
}

TEST(Resolve, ATokenHasNoMoreExpertsThanThereAre) {
    ShapeOptions options;
    options.shapes = {"4,64,32,8,5"};
    EXPECT_EQ(error_of(options), "--shape: top_k: expected at most E = 4, as a token has that many experts, got 5");
    options.shapes = {"4,64,32,8,4"};
    EXPECT_EQ(error_of(options), "no error");
}

TEST(Resolve, AProblemIsNamedWithItsSizesAndTypes) {
    ShapeOptions options;
    options.shapes = {"8,64,32,4,2"};
    options.models = {"olmoe"};
    const auto problems = resolve(options, Backend::cuda);
    EXPECT_EQ(problem_text(problems[0]), to_string(problems[0].problem));
    EXPECT_EQ(problem_text(problems[1]), "olmoe gate_up: E64 K2048 N2048 R16 k8 bf16 enk token->grouped");
}

TEST(Resolve, RankOfAShapeIsItsFourthNumber) {
    ShapeOptions options;
    options.shapes = {"8,64,32,4,2"};
    options.rank = 8;
    EXPECT_NE(error_of(options).find("--rank"), std::string::npos);
}

TEST(Resolve, WeightsAreThoseOfTheOption) {
    ShapeOptions options;
    options.shapes = {"8,64,32,4,2"};
    options.weights = "nf4:double";
    const NamedProblem shape = resolve(options, Backend::cuda)[0];
    EXPECT_EQ(to_string(shape.problem.weights), "nf4 block 64 double 256");
    EXPECT_EQ(shape.problem.weight_layout, WeightLayout::enk) << "as checkpoints have it";
    EXPECT_EQ(title_of(shape), shape.name) << "which says it already";
    EXPECT_EQ(json_of(shape)["weights"], "nf4 block 64 double 256");
    options.weight_layout = "ekn";
    EXPECT_EQ(resolve(options, Backend::cuda)[0].problem.weight_layout, WeightLayout::ekn);
    options.weight_layout.clear();
    options.weights = "plain";
    EXPECT_EQ(resolve(options, Backend::cuda)[0].problem.weight_layout, WeightLayout::ekn);

    ShapeOptions model;
    model.models = {"qwen3-30b-a3b"};
    EXPECT_EQ(title_of(resolve(model, Backend::cuda)[0]), "qwen3-30b-a3b gate_up");
    model.weights = "nvfp4:divisor";
    const auto both = resolve(model, Backend::cuda);
    EXPECT_EQ(title_of(both[0]), "qwen3-30b-a3b gate_up weights: nvfp4 block 16 parts 2 divisor");
    EXPECT_EQ(case_text(both[1], 1, 1), "qwen3-30b-a3b down weights: nvfp4 block 16 divisor, 1 token");
    EXPECT_EQ(case_text(both[1], 7, 1), "qwen3-30b-a3b down weights: nvfp4 block 16 divisor, 7 tokens");
}

TEST(Resolve, WeightsThatDoNotFitAreRefusedWithBothNumbers) {
    ShapeOptions options;
    options.shapes = {"8,100,32,4,2"};
    options.weights = "mxfp4";
    EXPECT_EQ(error_of(options), "problem.weights.block: expected a divisor of columns = 100, got 32");
    options.weights = "nf4:48";
    EXPECT_EQ(error_of(options), "problem.weights.block: expected a power of two from 32 to 4096 for nf4, got 48");
    options.weights = "int4:50:uint8";
    EXPECT_EQ(error_of(options), "problem.weights.scales: expected bf16 or fp16 or fp32, got uint8");
    options.weights = "nf4";
    options.dtype = "fp64";
    EXPECT_EQ(error_of(options, Backend::cpu),
              "problem.dtype: expected bf16, fp16 or fp32 with quantised weights, got fp64");
    ShapeOptions model;
    model.models = {"olmoe"};
    model.weights = "int4:96";
    EXPECT_EQ(error_of(model), "olmoe gate_up: problem.weights.block: expected a divisor of columns = 2048, got 96");
}

TEST(Resolve, UnknownModelListsTheKnownOnes) {
    ShapeOptions options;
    options.models = {"gpt-9"};
    EXPECT_NE(error_of(options).find("deepseek-v3"), std::string::npos);
}

}  // namespace
}  // namespace smlora::tool
