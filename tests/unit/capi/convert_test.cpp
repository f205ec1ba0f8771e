// Problems, views and the names of enumerators, as C gives them: what arrives and what is said of what is wrong.
#include "unit/capi/c_structs.hpp"

#include <string>

namespace smlora::capi::test {
namespace {

TEST(ConvertProblem, BothFlagsArrive) {
    auto p = initialised<smlora_problem>();
    p.bias = 1;
    EXPECT_TRUE(to_problem(&p).bias);
    EXPECT_FALSE(to_problem(&p).gates);
    p.bias = 0;
    p.gates = 1;
    EXPECT_FALSE(to_problem(&p).bias);
    EXPECT_TRUE(to_problem(&p).gates);
}

TEST(ConvertProblem, TheRangeOfAnEnumerationIsSaid) {
    auto p = initialised<smlora_problem>();
    p.weight_layout = 6;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_problem(&p)); }), "problem.weight_layout: expected 0 to 1, got 6");
    p.weight_layout = SMLORA_WEIGHT_ENK;
    EXPECT_EQ(to_problem(&p).weight_layout, WeightLayout::enk);
    p.x_rows = SMLORA_ROWS_GROUPED;
    p.y_rows = SMLORA_ROWS_TOKEN;
    EXPECT_EQ(to_problem(&p).x_rows, RowOrder::grouped);
    EXPECT_EQ(to_problem(&p).y_rows, RowOrder::token);
    p.index_dtype = SMLORA_INT64;
    EXPECT_EQ(to_problem(&p).index_dtype, DType::int64);
    p.reserved = 6;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_problem(&p)); }), "problem.reserved: expected 0, got 6");
}

TEST(ConvertTensor, AllZeroIsNotGiven) { EXPECT_FALSE(to_tensor(smlora_tensor{}, {"", "x"}).given()); }

TEST(ConvertTensor, EveryNumberOfDimensionsArrives) {
    for (std::int32_t ndim = 0; ndim <= SMLORA_MAX_NDIM; ++ndim) {
        smlora_tensor tensor = distinct_tensor();
        tensor.ndim = ndim;
        expect_same(to_tensor(tensor, {"", "x"}), tensor);
    }
}

TEST(ConvertTensor, WhatIsWrongIsNamed) {
    smlora_tensor tensor = distinct_tensor();
    const auto message = [&] { return message_of([&] { static_cast<void>(to_tensor(tensor, {"", "x"})); }); };
    tensor.ndim = 5;
    EXPECT_EQ(message(), "x.ndim: expected 0 to 4, got 5");
    tensor.ndim = -1;
    EXPECT_EQ(message(), "x.ndim: expected 0 to 4, got -1");
    tensor.ndim = 2;
    tensor.dtype = 99;
    EXPECT_EQ(message(), "x.dtype: expected 0 to 9, got 99");
    tensor.dtype = SMLORA_FP32;
    tensor.shape[1] = -3;
    EXPECT_EQ(message(), "x.shape[1]: expected 0 or more, got -3");
}

TEST(ConvertArgs, AWrongViewIsNamedWithTheStructThatHoldsIt) {
    auto a = initialised<smlora_route_args>();
    a.routing.expert_offsets.ndim = 5;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_args(&a)); }),
              "routing.expert_offsets.ndim: expected 0 to 4, got 5");
}

TEST(Names, OfActivationsAndGateLayouts) {
    EXPECT_STREQ(smlora_activation_name(SMLORA_SWIGLU), "swiglu");
    EXPECT_STREQ(smlora_activation_name(SMLORA_SWIGLU_CLAMPED), "swiglu_clamped");
    EXPECT_EQ(smlora_activation_name(5), nullptr);
    EXPECT_STREQ(smlora_tune_skew_name(SMLORA_SKEW_UNIFORM), "uniform");
    EXPECT_STREQ(smlora_tune_skew_name(SMLORA_SKEW_ZIPF), "zipf");
    EXPECT_STREQ(smlora_tune_skew_name(SMLORA_SKEW_ONE), "one");
    EXPECT_EQ(smlora_tune_skew_name(3), nullptr);
    EXPECT_STREQ(smlora_gate_layout_name(SMLORA_GATE_INTERLEAVED), "interleaved");
    EXPECT_EQ(smlora_gate_layout_name(-1), nullptr);
}

}  // namespace
}  // namespace smlora::capi::test
