// The floor of an operation, against the figures of docs/lab/2026-11-23-portable.md: one H200, R = 16, bf16.
#include "smlora_tune/floor.hpp"

#include "workload/encoded.hpp"

#include <gtest/gtest.h>

namespace smlora::tool {
namespace {

struct Figures {
    const char* name;
    std::int64_t E, K, N, T, top_k;
    double forward, dx, lora_grad, step;  // ms
};

constexpr Figures figures[] = {
    {"qwen35_gate_up", 256, 2048, 1024, 2048, 8, 0.270, 0.270, 0.022, 0.561},
    {"qwen35_down", 256, 512, 2048, 2048, 8, 0.148, 0.148, 0.026, 0.323},
    {"olmoe_gate_up", 64, 2048, 2048, 2048, 8, 0.175, 0.175, 0.022, 0.373},
    {"qwen3_gate_up", 128, 2048, 1536, 2048, 8, 0.208, 0.208, 0.021, 0.436},
    {"qwen3_gate_up_16k", 128, 2048, 1536, 16384, 8, 1.055, 1.055, 0.118, 2.228},
    {"qwen3_down_16k", 128, 768, 2048, 16384, 8, 0.533, 0.533, 0.138, 1.204},
    {"mixtral_gate_up_8k", 8, 4096, 28672, 8192, 2, 4.856, 4.856, 0.242, 9.954},
    {"gptoss_gate_up_8k", 128, 2880, 5760, 8192, 4, 1.377, 1.377, 0.117, 2.871},
};

constexpr Ceilings h200{796e12, 4.23e12};

Problem problem_of(const Figures& shape) {
    Problem problem;
    problem.E = shape.E;
    problem.K = shape.K;
    problem.N = shape.N;
    problem.R = 16;
    problem.top_k = shape.top_k;
    return problem;
}

TEST(Floor, IsThatOfTheTableForEveryShapeAndOperation) {
    for (const Figures& shape : figures) {
        const Problem problem = problem_of(shape);
        const Load load{shape.T, shape.T * shape.top_k, shape.E};
        // The table has three decimals.
        EXPECT_NEAR(floor_seconds(Op::forward, problem, load, h200) * 1e3, shape.forward, 0.00051) << shape.name;
        EXPECT_NEAR(floor_seconds(Op::dx, problem, load, h200) * 1e3, shape.dx, 0.00051) << shape.name;
        EXPECT_NEAR(floor_seconds(Op::lora_grad, problem, load, h200) * 1e3, shape.lora_grad, 0.00051) << shape.name;
        EXPECT_NEAR(floor_seconds(Op::step, problem, load, h200) * 1e3, shape.step, 0.00151) << shape.name;
    }
}

TEST(Floor, OfTheBaseProductHasNoAdapter) {
    const Problem problem = problem_of(figures[3]);
    const Load load{2048, 16384, 128};
    const Work base = work(Op::base, problem, load);
    EXPECT_EQ(base.flop, 2.0 * 16384 * 2048 * 1536);
    EXPECT_EQ(base.bytes, 2.0 * (128.0 * 2048 * 1536 + 2048.0 * 2048 + 16384.0 * 1536));
    const Work with_adapter = work(Op::forward, problem, load);
    EXPECT_EQ(with_adapter.flop - base.flop, 2.0 * 16384 * 16 * (2048 + 1536));
    EXPECT_EQ(with_adapter.bytes - base.bytes, 2.0 * 128 * 16 * (2048 + 1536));
}

TEST(Floor, CountsTheWeightsOfActiveExpertsOnly) {
    const Problem problem = problem_of(figures[3]);
    const Work one_token = work(Op::base, problem, {1, 8, 8});
    EXPECT_EQ(one_token.bytes, 2.0 * (8.0 * 2048 * 1536 + 2048 + 8 * 1536));
}

TEST(Floor, FollowsTheOrderOfRows) {
    Problem problem = problem_of(figures[5]);
    problem.x_rows = RowOrder::grouped;
    problem.y_rows = RowOrder::token;
    const Load load{16384, 131072, 128};
    EXPECT_EQ(work(Op::base, problem, load).bytes, 2.0 * (128.0 * 768 * 2048 + 131072.0 * 768 + 16384.0 * 2048));
    // The gradient of the gates reads x as well.
    const double without_gates = work(Op::dx, problem, load).bytes;
    problem.gates = true;
    EXPECT_EQ(work(Op::dx, problem, load).bytes - without_gates, 2.0 * 131072 * 768);
}

TEST(Floor, CountsBytesOfTheTypesInUse) {
    Problem problem = problem_of(figures[3]);
    const Load load{2048, 16384, 128};
    const double bf16_base = work(Op::base, problem, load).bytes;
    const double bf16_adapter = work(Op::forward, problem, load).bytes - bf16_base;
    problem.adapter_dtype = DType::fp32;
    EXPECT_EQ(work(Op::forward, problem, load).bytes - bf16_base, 2 * bf16_adapter);
    problem.dtype = DType::fp32;
    EXPECT_EQ(work(Op::base, problem, load).bytes, 2 * bf16_base);
}

TEST(Floor, WorkOfAStepIsTheSumOfItsParts) {
    const Problem problem = problem_of(figures[0]);
    const Load load{2048, 16384, 256};
    double flop = 0;
    double bytes = 0;
    for (const Op op : {Op::forward, Op::dx, Op::lora_grad}) {
        flop += total_work(op, problem, load).flop;
        bytes += total_work(op, problem, load).bytes;
    }
    EXPECT_EQ(total_work(Op::step, problem, load).flop, flop);
    EXPECT_EQ(total_work(Op::step, problem, load).bytes, bytes);
}

TEST(Floor, ActivationsReadAndWriteOnce) {
    const Problem problem = problem_of(figures[0]);
    const Load load{2048, 16384, 256};
    const double values = 16384.0 * static_cast<double>(problem.N);  // of h, in 16 bits
    EXPECT_EQ(work(Op::activation, problem, load).bytes, 3 * values);
    EXPECT_EQ(work(Op::activation_backward, problem, load).bytes, 5 * values);
    EXPECT_EQ(work(Op::activation, problem, load).flop, 0);
}

TEST(Floor, RowOperationsReadAndWriteOnce) {
    const Problem problem = problem_of(figures[0]);
    const Load load{2048, 16384, 256};
    const auto entries = 2048.0 * static_cast<double>(problem.top_k);
    const auto K = static_cast<double>(problem.K);
    const auto N = static_cast<double>(problem.N);
    EXPECT_EQ(work(Op::route, problem, load).bytes, 4 * (3 * entries + static_cast<double>(problem.E)));
    EXPECT_EQ(work(Op::group, problem, load).bytes, 2 * K * (2048 + entries));
    EXPECT_EQ(work(Op::combine, problem, load).bytes, 2 * N * (entries + 2048) + 4 * entries);
    EXPECT_EQ(work(Op::combine_backward, problem, load).bytes, 2 * N * (2 * entries + 2048) + 8 * entries);
}

/// The bytes that a weight of this format really has, of its codes and scales.
double bytes_of(const Engine& engine, const Problem& problem) {
    const workload::EncodedWeight encoded(engine, workload::encoded_shape(problem), workload::Random(1));
    const Weight& weight = encoded.weight();
    double sum = 0;
    for (const Tensor* tensor :
         {&weight.codes, &weight.scales, &weight.double_quantization.scales, &weight.global_scales}) {
        if (!tensor->given()) continue;
        sum += static_cast<double>(tensor->numel()) * static_cast<double>(size_of(tensor->dtype));
    }
    return sum;
}

TEST(Floor, CountsQuantisedWeightsAsTheyAreStored) {
    EngineOptions options;
    options.backend = Backend::cpu;
    const Engine engine(options);
    Problem problem;
    problem.E = 6;
    problem.K = 128;
    problem.N = 320;
    problem.weight_layout = WeightLayout::enk;
    WeightFormat doubled = usual_format(Encoding::nf4);
    doubled.scales = DType::uint8;
    doubled.outer_block = 256;
    WeightFormat ragged = usual_format(Encoding::fp8);
    ragged.scales = DType::bf16;
    ragged.block = 96;
    ragged.parts = 2;
    WeightFormat apart = usual_format(Encoding::nvfp4);
    apart.parts = 2;
    for (const WeightFormat& format :
         {usual_format(Encoding::nf4), doubled, usual_format(Encoding::fp4), usual_format(Encoding::int8),
          usual_format(Encoding::mxfp4), usual_format(Encoding::fp8), ragged, usual_format(Encoding::mxfp8), apart,
          usual_format(Encoding::int4)}) {
        for (const WeightLayout layout : {WeightLayout::enk, WeightLayout::ekn}) {
            problem.weights = format;
            problem.weight_layout = layout;
            EXPECT_EQ(6 * packed_bytes(problem), bytes_of(engine, problem)) << to_string(problem);
        }
    }
}

TEST(Floor, OfQuantisedWeightsDiffersByTheWeightsAlone) {
    Problem problem = problem_of(figures[3]);
    problem.weight_layout = WeightLayout::enk;
    const Load load{2048, 16384, 100};
    const Work plain_base = work(Op::base, problem, load);
    const Work plain_gradients = work(Op::lora_grad, problem, load);
    problem.weights = usual_format(Encoding::mxfp4);
    const double values = 2048.0 * 1536;
    const Work base = work(Op::base, problem, load);
    EXPECT_EQ(base.flop, plain_base.flop);
    EXPECT_EQ(plain_base.bytes - base.bytes, 100 * values * (2 - 17.0 / 32)) << "of active experts";
    EXPECT_EQ(work(Op::lora_grad, problem, load).bytes, plain_gradients.bytes) << "which read no weights";
    EXPECT_EQ(work(Op::unpack, problem, load).bytes, 128 * values * (2 + 17.0 / 32)) << "of all experts";
    EXPECT_EQ(work(Op::unpack, problem, load).flop, 0);
}

TEST(Op, NamesGoBothWays) {
    for (const Op op : {Op::base, Op::forward, Op::dx, Op::lora_grad, Op::step, Op::activation, Op::activation_backward,
                        Op::route, Op::group, Op::combine, Op::combine_backward, Op::unpack}) {
        EXPECT_EQ(op_from_name(name(op)), op);
    }
    EXPECT_EQ(op_from_name("backward"), std::nullopt);
}

}  // namespace
}  // namespace smlora::tool
