// forward, backward_input and backward_lora against naive fp64 loops, over layouts, types and awkward sizes.
#include "cpu/operations.hpp"
#include "support/checks.hpp"

#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cctype>
#include <string>

namespace smlora::test {
namespace {

Case make(DType dtype, std::int64_t E, std::int64_t K, std::int64_t N, std::int64_t R, std::int64_t top_k,
          std::int64_t T) {
    return {.problem = shape(E, K, N, R, top_k, dtype), .T = T, .choice = Choice::any, .scaling = 0.75F};
}

constexpr DType dtypes[] = {DType::bf16, DType::fp16, DType::fp32, DType::fp64};

/// Every pair of row orders with both weight layouts, in every dtype.
Cases layouts() {
    Cases cases;
    for (DType dtype : dtypes) {
        for (RowOrder x_rows : {RowOrder::token, RowOrder::scattered, RowOrder::grouped}) {
            for (RowOrder y_rows : {RowOrder::token, RowOrder::scattered, RowOrder::grouped}) {
                for (WeightLayout layout : {WeightLayout::ekn, WeightLayout::enk}) {
                    Case options = make(dtype, 5, 37, 53, 3, 2, 19);
                    options.problem.x_rows = x_rows;
                    options.problem.y_rows = y_rows;
                    options.problem.weight_layout = layout;
                    options.left_out = 0.3;
                    cases.push_back(options);
                }
            }
        }
    }
    return cases;
}

/// Gates and bias, alone and together, with gates of either type.
Cases gates_and_bias() {
    Cases cases;
    for (DType dtype : dtypes) {
        for (DType gate_dtype : {dtype, DType::fp32}) {
            for (RowOrder x_rows : {RowOrder::token, RowOrder::scattered, RowOrder::grouped}) {
                for (bool bias : {false, true}) {
                    if (gate_dtype == DType::fp32 && dtype == DType::fp32 && bias) continue;
                    Case options = make(dtype, 6, 80, 53, 5, 3, 17);
                    options.problem.x_rows = x_rows;
                    options.problem.y_rows = RowOrder::token;
                    options.problem.gates = true;
                    options.problem.gate_dtype = gate_dtype;
                    options.problem.bias = bias;
                    options.left_out = 0.3;
                    cases.push_back(options);
                }
            }
        }
    }
    return cases;
}

Cases without_adapter() {
    Cases cases;
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
Cases views() {
    Cases cases;
    for (DType dtype : dtypes) {
        for (DType adapter_dtype : {dtype, DType::fp32}) {
            for (AdapterLayout layout :
                 {AdapterLayout::contiguous, AdapterLayout::seed, AdapterLayout::peft, AdapterLayout::transposed,
                  AdapterLayout::peft_transposed, AdapterLayout::gapped}) {
                Case options = make(dtype, 4, 96, 80, 8, 2, 23);
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
Cases sizes() {
    Cases cases;
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
        for (const Choice choice : {Choice::one_expert, Choice::few_experts}) {
            cases.push_back(make(dtype, 7, 40, 33, 4, 2, 21));
            cases.back().choice = choice;
        }
        cases.push_back(make(dtype, 7, 40, 33, 4, 2, 21));
        cases.back().left_out = 2;  // all
    }
    // Several tiles in every direction, the last of each only partly filled.
    Case tiles = make(DType::fp32, 2, 269, 300, 9, 2, 205);
    tiles.problem.y_rows = RowOrder::token;
    cases.push_back(tiles);
    Case deep = make(DType::fp64, 1, 300, 269, 200, 1, 205);
    deep.problem.weight_layout = WeightLayout::enk;
    cases.push_back(deep);
    return cases;
}

/// xa or yb: rows behind those that are routed.
void expect_zero_behind_routed_rows(const workload::Projection& p, const Array& ranked) {
    const Values rest = ranked.read(p.host_routing.rows(), p.M - p.host_routing.rows());
    for (const double value : rest) ASSERT_EQ(value, 0.0);
}

class CpuProjection : public testing::TestWithParam<Case> {
 protected:
    workload::Projection p{engine_of(Backend::cpu), GetParam(), draws_of(static_cast<std::uint64_t>(GetParam().T))};
    util::ThreadPool threads{2};
};

class CpuProjectionWithAdapter : public CpuProjection {};

TEST_P(CpuProjection, ForwardGivesTheProductWithItsAdapter) {
    const Array y = p.make_y();
    ForwardArgs args = p.forward_args();
    args.y = y.view();
    cpu::forward(threads, p.problem, args);
    expect_y(p, y);
}

TEST_P(CpuProjectionWithAdapter, ForwardWritesXaWithZeroPadding) {
    const Array y = p.make_y();
    const Array xa = p.make_ranked();
    ForwardArgs args = p.forward_args();
    args.y = y.view();
    args.xa = p.ranked_view(xa);
    cpu::forward(threads, p.problem, args);
    expect_xa(p, xa);
    expect_zero_behind_routed_rows(p, xa);
    const Array without_xa = p.make_y();
    args.y = without_xa.view();
    args.xa = {};
    cpu::forward(threads, p.problem, args);
    EXPECT_TRUE(y.same_bits(without_xa));
}

TEST_P(CpuProjection, BackwardInputGivesDxYbAndDgates) {
    const Array dx = p.make_dx();
    const Array yb = p.make_ranked();
    const Array dgates = p.make_dgates();
    BackwardInputArgs args = p.backward_input_args();
    args.dx = dx.view();
    if (p.problem.R > 0) args.yb = p.ranked_view(yb);
    if (p.problem.gates) {
        args.dgates = dgates.view();
        args.x = p.x.view();
        args.bias = p.bias.view();
    }
    cpu::backward_input(threads, p.problem, args);
    expect_dx(p, dx);
    if (p.problem.R > 0) {
        expect_yb(p, yb);
        expect_zero_behind_routed_rows(p, yb);
    }
    if (p.problem.gates) expect_dgates(p, dgates);
    const Array alone = p.make_dx();
    args.dx = alone.view();
    args.yb = {};
    args.dgates = {};
    cpu::backward_input(threads, p.problem, args);
    EXPECT_TRUE(dx.same_bits(alone));
}

TEST_P(CpuProjectionWithAdapter, BackwardLoraGivesDaAndDb) {
    const Array dA = p.make_dA();
    const Array dB = p.make_dB();
    BackwardLoraArgs args = p.backward_lora_args();
    args.dA = dA.view();
    args.dB = dB.view();
    cpu::backward_lora(threads, p.problem, args);
    expect_dA(p, dA);
    expect_dB(p, dB);
}

TEST_P(CpuProjectionWithAdapter, KeptXaAndYbGiveTheSameGradientsAsComputedAgain) {
    const Array y = p.make_y();
    const Array dx = p.make_dx();
    const Array xa = p.make_ranked();
    const Array yb = p.make_ranked();
    ForwardArgs forward = p.forward_args();
    forward.y = y.view();
    forward.xa = p.ranked_view(xa);
    cpu::forward(threads, p.problem, forward);
    BackwardInputArgs backward = p.backward_input_args();
    backward.dx = dx.view();
    backward.yb = p.ranked_view(yb);
    cpu::backward_input(threads, p.problem, backward);

    const Array dA = p.make_dA();
    const Array dB = p.make_dB();
    BackwardLoraArgs args = p.backward_lora_args();
    args.dA = dA.view();
    cpu::backward_lora(threads, p.problem, args);
    args.dA = {};
    args.dB = dB.view();
    cpu::backward_lora(threads, p.problem, args);

    const Array kept_dA = p.make_dA();
    const Array kept_dB = p.make_dB();
    args.A = {};
    args.B = {};
    args.xa = p.ranked_view(xa);
    args.yb = p.ranked_view(yb);
    args.dA = kept_dA.view();
    args.dB = kept_dB.view();
    cpu::backward_lora(threads, p.problem, args);
    EXPECT_TRUE(dA.same_bits(kept_dA));
    EXPECT_TRUE(dB.same_bits(kept_dB));
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
    const Case& c = info.param;
    std::string text = fmt::format("{} T{} {} adapter{} {}", to_string(c.problem), c.T, static_cast<int>(c.choice),
                                   static_cast<int>(c.adapter), info.index);
    for (char& letter : text) {
        if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
    }
    return text;
}

INSTANTIATE_TEST_SUITE_P(Layouts, CpuProjection, testing::ValuesIn(layouts()), name_of_case);
INSTANTIATE_TEST_SUITE_P(Layouts, CpuProjectionWithAdapter, testing::ValuesIn(layouts()), name_of_case);
INSTANTIATE_TEST_SUITE_P(GatesAndBias, CpuProjection, testing::ValuesIn(gates_and_bias()), name_of_case);
INSTANTIATE_TEST_SUITE_P(GatesAndBias, CpuProjectionWithAdapter, testing::ValuesIn(gates_and_bias()), name_of_case);
INSTANTIATE_TEST_SUITE_P(Views, CpuProjection, testing::ValuesIn(views()), name_of_case);
INSTANTIATE_TEST_SUITE_P(Views, CpuProjectionWithAdapter, testing::ValuesIn(views()), name_of_case);
INSTANTIATE_TEST_SUITE_P(Sizes, CpuProjection, testing::ValuesIn(sizes()), name_of_case);
INSTANTIATE_TEST_SUITE_P(Sizes, CpuProjectionWithAdapter, testing::ValuesIn(sizes()), name_of_case);
INSTANTIATE_TEST_SUITE_P(WithoutAdapter, CpuProjection, testing::ValuesIn(without_adapter()), name_of_case);

}  // namespace
}  // namespace smlora::test
