// group, combine and combine_backward.
#include "cpu/operations.hpp"
#include "unit/cpu/layer.hpp"

#include <gtest/gtest.h>

#include <memory>

namespace smlora::test {
namespace {

constexpr std::int64_t width = 45;  // of rows that belong to no side of the projection
constexpr std::int64_t gap = 2;

class RowOperations : public testing::TestWithParam<DType> {
 protected:
    RowOperations() {
        LayerOptions options;
        options.problem.E = 5;
        options.problem.K = 8;
        options.problem.N = 8;
        options.problem.top_k = 3;
        options.problem.dtype = GetParam();
        options.problem.adapter_dtype = GetParam();
        options.problem.gate_dtype = GetParam() == DType::fp16 ? DType::fp16 : DType::fp32;
        options.T = 11;
        options.tokens = Tokens::some_left_out;
        layer = std::make_unique<Layer>(options);
        problem = layer->problem;
        T = options.T;
        M = layer->M();
        gates = layer->make_gates();
        gates.randomize(random);
        routed = layer->expert_offsets.integer(problem.E - 1);
    }

    Array rows(std::int64_t count) { return Array(problem.dtype, {count, width}, {width + gap, 1}); }
    Array random_rows(std::int64_t count) {
        Array array = rows(count);
        array.randomize(random);
        return array;
    }
    Routing routing() const { return {layer->sorted_expert_idxs, layer->sorted_scattered_idxs, layer->expert_offsets}; }
    std::int64_t entry(std::int64_t i) const { return layer->sorted_scattered_idxs.integer(i); }
    double gate(std::int64_t f) const { return gates.at(f / problem.top_k, f % problem.top_k); }

    std::unique_ptr<Layer> layer;
    Problem problem;
    std::int64_t T = 0;
    std::int64_t M = 0;
    std::int64_t routed = 0;
    std::mt19937_64 random{21};
    Array gates;
    util::ThreadPool threads{2};
};

TEST_P(RowOperations, GroupCopiesRowsBitForBit) {
    for (RowOrder order : {RowOrder::token, RowOrder::scattered}) {
        problem.x_rows = order;
        const Array x = random_rows(order == RowOrder::token ? T : M);
        const Array out = rows(M);
        cpu::group(threads, problem, {x, {}, routing(), out, {}});
        for (std::int64_t i = 0; i < M; ++i) {
            const std::int64_t source = order == RowOrder::token ? entry(i) / problem.top_k : entry(i);
            for (std::int64_t c = 0; c < width; ++c) {
                ASSERT_EQ(out.at(i, c), i < routed ? x.at(source, c) : 0.0);
            }
        }
        EXPECT_TRUE(out.gaps_untouched());
    }
}

TEST_P(RowOperations, GroupMultipliesWithTheGate) {
    problem.x_rows = RowOrder::token;
    const Array x = random_rows(T);
    const Array out = rows(M);
    cpu::group(threads, problem, {x, gates, routing(), out, {}});
    std::vector<double> expected;
    for (std::int64_t i = 0; i < M; ++i) {
        for (std::int64_t c = 0; c < width; ++c) {
            expected.push_back(i < routed ? gate(entry(i)) * x.at(entry(i) / problem.top_k, c) : 0.0);
        }
    }
    EXPECT_LE(relative_error(out.values(), expected), tolerance_of(problem.dtype));
}

TEST_P(RowOperations, CombineSumsTheRowsOfAToken) {
    const Array y = random_rows(M);
    for (bool gated : {false, true}) {
        const Array out = rows(T);
        cpu::combine(threads, problem, {y, gated ? gates.view() : Tensor{}, out, {}});
        std::vector<double> expected;
        for (std::int64_t t = 0; t < T; ++t) {
            for (std::int64_t c = 0; c < width; ++c) {
                double sum = 0;
                for (std::int64_t f = t * problem.top_k; f < (t + 1) * problem.top_k; ++f) {
                    sum += (gated ? gate(f) : 1.0) * y.at(f, c);
                }
                expected.push_back(sum);
            }
        }
        EXPECT_LE(relative_error(out.values(), expected), tolerance_of(problem.dtype));
        EXPECT_TRUE(out.gaps_untouched());
    }
}

TEST_P(RowOperations, CombineBackwardGivesDyAndDgates) {
    const Array dout = random_rows(T);
    const Array y = random_rows(M);
    std::vector<double> expected_dy;
    std::vector<double> expected_dgates;
    for (std::int64_t f = 0; f < M; ++f) {
        double sum = 0;
        for (std::int64_t c = 0; c < width; ++c) {
            expected_dy.push_back(gate(f) * dout.at(f / problem.top_k, c));
            sum += dout.at(f / problem.top_k, c) * y.at(f, c);
        }
        expected_dgates.push_back(sum);
    }
    const Array dy = rows(M);
    const Array dgates = layer->make_gates();
    cpu::combine_backward(threads, problem, {dout, y, gates, dy, dgates, {}});
    EXPECT_LE(relative_error(dy.values(), expected_dy), tolerance_of(problem.dtype));
    EXPECT_LE(relative_error(dgates.values(), expected_dgates), tolerance_of(problem.gate_dtype));
    EXPECT_TRUE(dy.gaps_untouched());

    const Array dy_alone = rows(M);
    cpu::combine_backward(threads, problem, {dout, {}, gates, dy_alone, {}, {}});
    EXPECT_EQ(dy_alone.bytes(), dy.bytes());
    const Array dgates_alone = layer->make_gates();
    cpu::combine_backward(threads, problem, {dout, y, {}, {}, dgates_alone, {}});
    EXPECT_EQ(dgates_alone.bytes(), dgates.bytes());
}

TEST_P(RowOperations, CombineBackwardWithoutGatesCopies) {
    const Array dout = random_rows(T);
    const Array dy = rows(M);
    cpu::combine_backward(threads, problem, {dout, {}, {}, dy, {}, {}});
    for (std::int64_t f = 0; f < M; ++f) {
        for (std::int64_t c = 0; c < width; ++c) ASSERT_EQ(dy.at(f, c), dout.at(f / problem.top_k, c));
    }
}

INSTANTIATE_TEST_SUITE_P(Types, RowOperations, testing::Values(DType::bf16, DType::fp16, DType::fp32, DType::fp64),
                         [](const auto& tested) { return std::string(name(tested.param)); });

}  // namespace
}  // namespace smlora::test
