// The two projections of a model whose experts are quantised.
#include "models/model_shape.hpp"
#include "models/model_table.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace smlora::models {
namespace {

/// {format of gate_up, format of down}.
std::pair<std::string, std::string> formats(ModelShape model, const WeightFormat& weights) {
    model.weights = weights;
    const auto both = projections(model, 16);
    for (const Projection& one : both) validate(one.problem);
    return {to_string(both[0].problem.weights), to_string(both[1].problem.weights)};
}

using Both = std::pair<std::string, std::string>;

TEST(ModelShape, GateAndUpAreQuantisedApartWhereThatMatters) {
    const ModelShape& qwen = model_by_name("qwen3-30b-a3b");
    EXPECT_EQ(formats(qwen, usual_format(Encoding::nf4)), Both("nf4 block 64", "nf4 block 64"));
    EXPECT_EQ(formats(qwen, usual_format(Encoding::nvfp4)), Both("nvfp4 block 16 parts 2", "nvfp4 block 16"));
    EXPECT_EQ(formats(qwen, usual_format(Encoding::fp8)), Both("fp8 block 128", "fp8 block 128"));
    ModelShape ragged = qwen;
    ragged.intermediate_size = 704;
    EXPECT_EQ(formats(ragged, usual_format(Encoding::fp8)), Both("fp8 block 128 parts 2", "fp8 block 128"));
    // Rows that take turns are no ranges.
    EXPECT_EQ(formats(model_by_name("gpt-oss-20b"), usual_format(Encoding::nvfp4)),
              Both("nvfp4 block 16", "nvfp4 block 16"));
    // What is said goes before what is known, and down has no parts.
    WeightFormat said = usual_format(Encoding::fp8);
    said.parts = 2;
    EXPECT_EQ(formats(qwen, said), Both("fp8 block 128 parts 2", "fp8 block 128"));
}

TEST(ModelShape, OnlyBitsandbytesQuantisesAlongOutputs) {
    const auto layout = [](const char* name, Encoding encoding) {
        ModelShape model = model_by_name(name);
        model.weights = usual_format(encoding);
        return projections(model, 16)[1].problem.weight_layout;
    };
    for (const Encoding encoding : {Encoding::plain, Encoding::nf4, Encoding::fp4, Encoding::int8}) {
        EXPECT_EQ(layout("gpt-oss-20b", encoding), WeightLayout::ekn) << name(encoding);
        EXPECT_EQ(layout("olmoe", encoding), WeightLayout::enk) << name(encoding);
    }
    for (const Encoding encoding : {Encoding::mxfp4, Encoding::fp8, Encoding::mxfp8, Encoding::nvfp4, Encoding::int4}) {
        EXPECT_EQ(layout("gpt-oss-20b", encoding), WeightLayout::enk) << name(encoding);
        EXPECT_EQ(layout("olmoe", encoding), WeightLayout::enk) << name(encoding);
    }
}

TEST(ModelShape, ARankOfExpertParallelismHasAPartOfTheExperts) {
    const ModelShape& qwen = model_by_name("qwen3-30b-a3b");
    const auto whole = projections(qwen, 16), alone = projections_of_rank(qwen, 16, {});
    const auto own = projections_of_rank(qwen, 16, {.ranks = 8}),
               shared = projections_of_rank(qwen, 16, {.ranks = 8, .shares_tokens = true});
    for (std::size_t i = 0; i < 2; ++i) {
        EXPECT_EQ(alone[i].problem, whole[i].problem);
        Problem expected = whole[i].problem;
        expected.E = 16;
        EXPECT_EQ(shared[i].problem, expected);
        expected.top_k = 1;
        expected.gates = false;
        EXPECT_EQ(own[i].problem, expected);
        validate(own[i].problem);
        validate(shared[i].problem);
    }
}

TEST(ModelShape, RanksOfExpertsDivideThem) {
    for (const std::int64_t ranks : {0, 3, 256}) {
        try {
            (void)projections_of_rank(model_by_name("olmoe"), 16, {.ranks = ranks});
            FAIL() << ranks;
        } catch (const Error& error) {
            EXPECT_EQ(error.what(),
                      fmt::format("ranks of experts: expected a divisor of the 64 experts of olmoe, got {}", ranks));
        }
    }
}

}  // namespace
}  // namespace smlora::models
