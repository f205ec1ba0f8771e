// forward, backward_input and backward_lora against naive fp64 loops, over layouts, types and awkward sizes.
#include "cpu/operations.hpp"
#include "unit/cpu/layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace smlora::test {
namespace {

LayerOptions make(DType dtype, std::int64_t E, std::int64_t K, std::int64_t N, std::int64_t R, std::int64_t top_k,
                  std::int64_t T) {
    LayerOptions options;
    options.problem.dtype = dtype;
    options.problem.adapter_dtype = dtype;
    options.problem.E = E;
    options.problem.K = K;
    options.problem.N = N;
    options.problem.R = R;
    options.problem.top_k = top_k;
    options.T = T;
    options.seed = static_cast<std::uint64_t>(E * 1000003 + K * 1009 + N * 31 + R * 7 + top_k * 3 + T);
    return options;
}

constexpr DType dtypes[] = {DType::bf16, DType::fp16, DType::fp32, DType::fp64};

/// Every pair of row orders with both weight layouts, in every dtype.
std::vector<LayerOptions> layouts() {
    std::vector<LayerOptions> cases;
    for (DType dtype : dtypes) {
        for (RowOrder x_rows : {RowOrder::token, RowOrder::scattered, RowOrder::grouped}) {
            for (RowOrder y_rows : {RowOrder::token, RowOrder::scattered, RowOrder::grouped}) {
                for (WeightLayout layout : {WeightLayout::ekn, WeightLayout::enk}) {
                    LayerOptions options = make(dtype, 5, 37, 53, 3, 2, 19);
                    options.problem.x_rows = x_rows;
                    options.problem.y_rows = y_rows;
                    options.problem.weight_layout = layout;
                    options.tokens = Tokens::some_left_out;
                    cases.push_back(options);
                }
            }
        }
    }
    return cases;
}

/// Gates and bias, alone and together, with gates of either type.
std::vector<LayerOptions> gates_and_bias() {
    std::vector<LayerOptions> cases;
    for (DType dtype : dtypes) {
        for (DType gate_dtype : {dtype, DType::fp32}) {
            for (RowOrder x_rows : {RowOrder::token, RowOrder::scattered, RowOrder::grouped}) {
                for (bool bias : {false, true}) {
                    if (gate_dtype == DType::fp32 && dtype == DType::fp32 && bias) continue;
                    LayerOptions options = make(dtype, 6, 80, 53, 5, 3, 17);
                    options.problem.x_rows = x_rows;
                    options.problem.y_rows = RowOrder::token;
                    options.problem.gates = true;
                    options.problem.gate_dtype = gate_dtype;
                    options.problem.bias = bias;
                    options.tokens = Tokens::some_left_out;
                    cases.push_back(options);
                }
            }
        }
    }
    return cases;
}

std::vector<LayerOptions> without_adapter() {
    std::vector<LayerOptions> cases;
    for (DType dtype : dtypes) {
        cases.push_back(make(dtype, 6, 37, 80, 0, 3, 17));
        cases.back().problem.bias = true;
        cases.push_back(make(dtype, 6, 96, 53, 0, 3, 17));
        cases.back().problem.y_rows = RowOrder::token;
        cases.back().problem.gates = true;
    }
    return cases;
}

/// Adapters in every view, of either type, with gaps between the rows and the matrices of the other tensors.
std::vector<LayerOptions> views() {
    std::vector<LayerOptions> cases;
    for (DType dtype : dtypes) {
        for (DType adapter_dtype : {dtype, DType::fp32}) {
            for (AdapterLayout layout :
                 {AdapterLayout::contiguous, AdapterLayout::stacked, AdapterLayout::peft, AdapterLayout::transposed}) {
                LayerOptions options = make(dtype, 4, 96, 80, 8, 2, 23);
                options.problem.adapter_dtype = adapter_dtype;
                options.problem.index_dtype = layout == AdapterLayout::peft ? DType::int64 : DType::int32;
                options.problem.weight_layout =
                    layout == AdapterLayout::contiguous ? WeightLayout::ekn : WeightLayout::enk;
                options.adapter = layout;
                options.row_gap = 3;
                options.expert_gap = 5;
                cases.push_back(options);
                if (adapter_dtype == dtype && dtype == DType::fp32) break;
            }
        }
    }
    return cases;
}

/// Ranks, and numbers of experts, choices and tokens at their edges.
std::vector<LayerOptions> sizes() {
    std::vector<LayerOptions> cases;
    for (std::int64_t R : {1, 2, 3, 5, 8, 16, 17, 256}) {
        cases.push_back(make(DType::fp32, 3, 96, 80, R, 2, 15));
        cases.push_back(make(DType::bf16, 3, 37, 53, R, 2, 15));
    }
    for (DType dtype : {DType::fp64, DType::bf16}) {
        cases.push_back(make(dtype, 1, 33, 31, 4, 1, 29));    // one expert, one choice
        cases.push_back(make(dtype, 7, 64, 48, 4, 3, 1));     // one token
        cases.push_back(make(dtype, 4, 1, 1, 1, 2, 9));       // one input, one output
        cases.push_back(make(dtype, 300, 16, 24, 2, 1, 40));  // most experts without rows
        cases.push_back(make(dtype, 2, 8, 8, 2, 64, 3));      // 64 choices
        cases.push_back(make(dtype, 3, 40, 32, 4, 2, 0));     // no token
        for (Tokens tokens : {Tokens::one_expert, Tokens::all_left_out, Tokens::few_experts}) {
            LayerOptions options = make(dtype, 7, 40, 33, 4, 2, 21);
            options.tokens = tokens;
            cases.push_back(options);
        }
    }
    // Several tiles in every direction, the last of each only partly filled.
    LayerOptions tiles = make(DType::fp32, 2, 269, 300, 9, 2, 205);
    tiles.problem.y_rows = RowOrder::token;
    cases.push_back(tiles);
    LayerOptions deep = make(DType::fp64, 1, 300, 269, 200, 1, 205);
    deep.problem.weight_layout = WeightLayout::enk;
    cases.push_back(deep);
    return cases;
}

class Projection : public testing::TestWithParam<LayerOptions> {
 protected:
    Layer layer{GetParam()};
    Problem problem = layer.problem;
    util::ThreadPool threads{2};
    double limit = tolerance_of(problem.dtype);
};

class ProjectionWithAdapter : public Projection {};

TEST_P(Projection, ForwardGivesTheProductWithItsAdapter) {
    Array y = layer.make_y();
    ForwardArgs args = layer.forward_args();
    args.y = y;
    cpu::forward(threads, problem, args);
    EXPECT_LE(relative_error(y.values(), layer.expected_y()), limit);
    EXPECT_TRUE(y.gaps_untouched());
}

TEST_P(ProjectionWithAdapter, ForwardWritesXaWithZeroPadding) {
    Array y = layer.make_y();
    Array xa = layer.make_rank_rows();
    ForwardArgs args = layer.forward_args();
    args.y = y;
    args.xa = xa;
    cpu::forward(threads, problem, args);
    EXPECT_LE(relative_error(xa.values(), layer.expected_xa()), limit);
    for (std::int64_t i = 0; i < layer.M(); ++i) {
        for (std::int64_t r = problem.R; r < padded_rank(problem); ++r) ASSERT_EQ(xa.at(i, r), 0.0);
    }
    Array without_xa = layer.make_y();
    args.y = without_xa;
    args.xa = {};
    cpu::forward(threads, problem, args);
    EXPECT_EQ(y.bytes(), without_xa.bytes());
}

TEST_P(Projection, BackwardInputGivesDxYbAndDgates) {
    Array dx = layer.make_dx();
    Array yb = layer.make_rank_rows();
    Array dgates = layer.make_gates();
    BackwardInputArgs args = layer.backward_input_args();
    args.dx = dx;
    if (problem.R > 0) args.yb = yb;
    if (problem.gates) {
        args.dgates = dgates;
        args.x = layer.x;
        args.bias = layer.bias;
    }
    cpu::backward_input(threads, problem, args);
    EXPECT_LE(relative_error(dx.values(), layer.expected_dx()), limit);
    EXPECT_TRUE(dx.gaps_untouched());
    if (problem.R > 0) {
        EXPECT_LE(relative_error(yb.values(), layer.expected_yb()), limit);
        for (std::int64_t i = 0; i < layer.M(); ++i) {
            for (std::int64_t r = problem.R; r < padded_rank(problem); ++r) ASSERT_EQ(yb.at(i, r), 0.0);
        }
    }
    if (problem.gates) {
        const double gate_limit = std::max(limit, tolerance_of(problem.gate_dtype));
        EXPECT_LE(relative_error(dgates.values(), layer.expected_dgates()), gate_limit);
    }
    Array alone = layer.make_dx();
    args.dx = alone;
    args.yb = {};
    args.dgates = {};
    cpu::backward_input(threads, problem, args);
    EXPECT_EQ(dx.bytes(), alone.bytes());
}

TEST_P(ProjectionWithAdapter, BackwardLoraGivesDaAndDb) {
    Array dA = layer.make_a();
    Array dB = layer.make_b();
    BackwardLoraArgs args = layer.backward_lora_args();
    args.dA = dA;
    args.dB = dB;
    cpu::backward_lora(threads, problem, args);
    const double adapter_limit = std::max(limit, tolerance_of(problem.adapter_dtype));
    EXPECT_LE(relative_error(dA.values(), layer.expected_dA()), adapter_limit);
    EXPECT_LE(relative_error(dB.values(), layer.expected_dB()), adapter_limit);
}

TEST_P(ProjectionWithAdapter, KeptXaAndYbGiveTheSameGradientsAsComputedAgain) {
    Array y = layer.make_y();
    Array dx = layer.make_dx();
    Array xa = layer.make_rank_rows();
    Array yb = layer.make_rank_rows();
    ForwardArgs forward = layer.forward_args();
    forward.y = y;
    forward.xa = xa;
    cpu::forward(threads, problem, forward);
    BackwardInputArgs backward = layer.backward_input_args();
    backward.dx = dx;
    backward.yb = yb;
    cpu::backward_input(threads, problem, backward);

    Array dA = layer.make_a();
    Array dB = layer.make_b();
    BackwardLoraArgs args = layer.backward_lora_args();
    args.dA = dA;
    cpu::backward_lora(threads, problem, args);
    args.dA = {};
    args.dB = dB;
    cpu::backward_lora(threads, problem, args);

    Array kept_dA = layer.make_a();
    Array kept_dB = layer.make_b();
    args.A = {};
    args.B = {};
    args.xa = xa;
    args.yb = yb;
    args.dA = kept_dA;
    args.dB = kept_dB;
    cpu::backward_lora(threads, problem, args);
    EXPECT_EQ(dA.bytes(), kept_dA.bytes());
    EXPECT_EQ(dB.bytes(), kept_dB.bytes());
}

std::string name_of(const testing::TestParamInfo<LayerOptions>& info) {
    return test_name(info.param) + "_" + std::to_string(info.index);
}

INSTANTIATE_TEST_SUITE_P(Layouts, Projection, testing::ValuesIn(layouts()), name_of);
INSTANTIATE_TEST_SUITE_P(Layouts, ProjectionWithAdapter, testing::ValuesIn(layouts()), name_of);
INSTANTIATE_TEST_SUITE_P(GatesAndBias, Projection, testing::ValuesIn(gates_and_bias()), name_of);
INSTANTIATE_TEST_SUITE_P(GatesAndBias, ProjectionWithAdapter, testing::ValuesIn(gates_and_bias()), name_of);
INSTANTIATE_TEST_SUITE_P(Views, Projection, testing::ValuesIn(views()), name_of);
INSTANTIATE_TEST_SUITE_P(Views, ProjectionWithAdapter, testing::ValuesIn(views()), name_of);
INSTANTIATE_TEST_SUITE_P(Sizes, Projection, testing::ValuesIn(sizes()), name_of);
INSTANTIATE_TEST_SUITE_P(Sizes, ProjectionWithAdapter, testing::ValuesIn(sizes()), name_of);
INSTANTIATE_TEST_SUITE_P(WithoutAdapter, Projection, testing::ValuesIn(without_adapter()), name_of);

}  // namespace
}  // namespace smlora::test
