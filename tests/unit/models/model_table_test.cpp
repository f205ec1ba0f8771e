// The shipped models and the problems that they make.
#include "models/model_table.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <string>

namespace smlora::models {
namespace {

TEST(ModelTable, KnowsTheModelsThatAreAdvertised) {
    for (const char* name : {"qwen3-30b-a3b", "qwen3-235b-a22b", "qwen35", "olmoe", "mixtral-8x7b", "gpt-oss-20b",
                             "gpt-oss-120b", "deepseek-v3"}) {
        EXPECT_EQ(model_by_name(name).name, name);
    }
    EXPECT_EQ(known_models().size(), 8U);
}

TEST(ModelTable, FindsNamesWhateverTheirCaseAndRepositories) {
    EXPECT_EQ(model_by_name("Qwen3-30B-A3B").name, "qwen3-30b-a3b");
    EXPECT_EQ(model_by_name("Qwen/Qwen3-30B-A3B").name, "qwen3-30b-a3b");
    EXPECT_EQ(model_by_name("openai/gpt-oss-120b").name, "gpt-oss-120b");
    EXPECT_EQ(model_by_name("mistralai/Mixtral-8x7B-v0.1").name, "mixtral-8x7b");
    EXPECT_EQ(model_by_name("deepseek-ai/DeepSeek-V3").name, "deepseek-v3");
    EXPECT_EQ(model_by_name("allenai/OLMoE-1B-7B-0924").name, "olmoe");
    EXPECT_EQ(model_by_name("Qwen/Qwen3.5-35B-A3B").name, "qwen35");
}

TEST(ModelTable, UnknownNameListsTheKnownOnes) {
    try {
        (void)model_by_name("qwen4");
        FAIL() << "no error";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
        const std::string message = error.what();
        EXPECT_NE(message.find("'qwen4'"), std::string::npos) << message;
        for (const ModelShape& model : known_models()) {
            EXPECT_NE(message.find(model.name), std::string::npos) << message;
        }
    }
}

TEST(ModelTable, Qwen3GateUpAndDownAreTheShapesOfTheirPapers) {
    const auto both = projections(model_by_name("qwen3-30b-a3b"), 16);
    ASSERT_EQ(both.size(), 2U);
    const Problem& gate_up = both[0].problem;
    EXPECT_EQ(both[0].name, "gate_up");
    EXPECT_EQ(gate_up.E, 128);
    EXPECT_EQ(gate_up.K, 2048);
    EXPECT_EQ(gate_up.N, 1536);
    EXPECT_EQ(gate_up.R, 16);
    EXPECT_EQ(gate_up.top_k, 8);
    EXPECT_EQ(gate_up.x_rows, RowOrder::token);
    EXPECT_EQ(gate_up.y_rows, RowOrder::grouped);
    EXPECT_FALSE(gate_up.gates);
    const Problem& down = both[1].problem;
    EXPECT_EQ(both[1].name, "down");
    EXPECT_EQ(down.K, 768);
    EXPECT_EQ(down.N, 2048);
    EXPECT_EQ(down.x_rows, RowOrder::grouped);
    EXPECT_EQ(down.y_rows, RowOrder::token);
    EXPECT_TRUE(down.gates);
}

TEST(ModelTable, OnlyGptOssHasBiasesAndStoresInputsFirst) {
    for (const ModelShape& model : known_models()) {
        const bool gpt_oss = model.name.rfind("gpt-oss", 0) == 0;
        EXPECT_EQ(model.bias, gpt_oss) << model.name;
        EXPECT_EQ(model.weight_layout, gpt_oss ? WeightLayout::ekn : WeightLayout::enk) << model.name;
        for (const Projection& projection : projections(model, 8)) {
            EXPECT_EQ(projection.problem.bias, model.bias);
            EXPECT_EQ(projection.problem.weight_layout, model.weight_layout);
        }
    }
}

}  // namespace
}  // namespace smlora::models
