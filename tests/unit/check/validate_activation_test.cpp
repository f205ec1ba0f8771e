// Every check of the arguments of activation and activation_backward: a call that is sound but for one thing, and what
// is said of it.
#include "unit/check/validate_calls.hpp"

namespace smlora::check::test {
namespace {

struct Activate {
    Problem problem = sound_problem();
    ActivationArgs args{tensor(DType::fp16, {T, 14}), tensor(DType::fp16, {T, 7})};
    Backend backend = Backend::cpu;
    std::int64_t validate() const { return validate_activation(problem, args, backend); }
};

struct ActivateBackward {
    Problem problem = sound_problem();
    ActivationBackwardArgs args{tensor(DType::fp16, {T, 14}), tensor(DType::fp16, {T, 7}), tensor(DType::fp16, {T, 14}),
                                tensor(DType::fp16, {T, 7})};
    Backend backend = Backend::cpu;
    std::int64_t validate() const { return validate_activation_backward(problem, args, backend); }
};

template <class Call>
void expect_parameters_checked() {
    expect_problem_checked<Call>();
    expect_refused<Call>({{"activation: expected swiglu, geglu, geglu_tanh, reglu or swiglu_clamped, got the value 5",
                           [](Call& c) { c.args.activation = static_cast<Activation>(5); }},
                          {"activation: expected swiglu, geglu, geglu_tanh, reglu or swiglu_clamped, got the value -1",
                           [](Call& c) { c.args.activation = static_cast<Activation>(-1); }},
                          {"layout: expected halves or interleaved, got the value 2",
                           [](Call& c) { c.args.layout = static_cast<GateLayout>(2); }},
                          {"alpha: expected a finite number, got nan",
                           [](Call& c) {
                               c.args.activation = Activation::swiglu_clamped;
                               c.args.alpha = std::nanf("");
                           }},
                          {"limit: expected a finite number above 0, got 0",
                           [](Call& c) {
                               c.args.activation = Activation::swiglu_clamped;
                               c.args.limit = 0;
                           }},
                          {"limit: expected a finite number above 0, got inf", [](Call& c) {
                               c.args.activation = Activation::swiglu_clamped;
                               c.args.limit = std::numeric_limits<float>::infinity();
                           }}});
    // What the others do not use is not looked at.
    expect_taken<Call>({{"no limit", [](Call& c) { c.args.limit = -1; }}});
}

TEST(ValidateActivation, NamesWhatIsWrong) {
    using Call = Activate;
    expect_parameters_checked<Call>();
    expect_rows_checked<Call>(
        "h", [](Call& c) -> Tensor& { return c.args.h; }, "[rows, 2 * width] = [3, 14]");
    expect_refused<Call>(
        {{"a: expected to be given as [rows, width], not given", [](Call& c) { c.args.a = {}; }},
         {"a: expected [rows, width], got 1 dimensions", [](Call& c) { c.args.a = tensor(DType::fp16, {7}); }},
         {"a: expected fp16, got fp32", [](Call& c) { c.args.a.dtype = DType::fp32; }},
         {"a: expected contiguous columns, got strides [20, 2] for shape [3, 7]",
          [](Call& c) {
              c.args.a = strided(DType::fp16, {3, 7}, {20, 2});
          }},
         {"a: expected at most 2147483647 rows (CUDA backend), got 2147483648", [](Call& c) {
              c.backend = Backend::cuda;
              c.args.a.shape[0] = std::int64_t{1} << 31;
          }}});
}

TEST(ValidateActivationBackward, NamesWhatIsWrong) {
    using Call = ActivateBackward;
    expect_parameters_checked<Call>();
    expect_rows_checked<Call>(
        "h", [](Call& c) -> Tensor& { return c.args.h; }, "[rows, 2 * width] = [3, 14]");
    expect_rows_checked<Call>(
        "dh", [](Call& c) -> Tensor& { return c.args.dh; }, "[rows, 2 * width] = [3, 14]");
    expect_tensor_checked<Call>(
        "a", [](Call& c) -> Tensor& { return c.args.a; }, "[rows, width] = [3, 7]", "fp16", false);
    expect_taken<Call>({{"without a", [](Call& c) { c.args.a = {}; }}});
    expect_refused<Call>({{"da: expected to be given as [rows, width], not given", [](Call& c) { c.args.da = {}; }},
                          {"da: expected fp16, got bf16", [](Call& c) { c.args.da.dtype = DType::bf16; }}});
}

/// With gates, which come by token: M rows.
struct ActivateBackwardWithGates {
    Problem problem = sound_problem();
    ActivationBackwardArgs args{.h = tensor(DType::fp16, {M, 14}),
                                .da = tensor(DType::fp16, {M, 7}),
                                .dh = tensor(DType::fp16, {M, 14}),
                                .a = tensor(DType::fp16, {M, 7}),
                                .gates = tensor(DType::fp32, {T, top_k}),
                                .sorted_scattered_idxs = tensor(DType::int64, {M}),
                                .dgates = tensor(DType::fp32, {T, top_k})};
    Backend backend = Backend::cpu;
    std::int64_t validate() const { return validate_activation_backward(problem, args, backend); }
};

TEST(ValidateActivationBackward, NamesWhatIsWrongOfGates) {
    using Call = ActivateBackwardWithGates;
    EXPECT_EQ(Call().validate(), M);
    expect_tensor_checked<Call>(
        "gates", [](Call& c) -> Tensor& { return c.args.gates; }, "[T, top_k] = [3, 2]", "fp32", false);
    expect_tensor_checked<Call>(
        "dgates", [](Call& c) -> Tensor& { return c.args.dgates; }, "[T, top_k] = [3, 2]", "fp32", false);
    expect_tensor_checked<Call>(
        "sorted_scattered_idxs", [](Call& c) -> Tensor& { return c.args.sorted_scattered_idxs; }, "[rows] = [6]",
        "int64", false);
    expect_refused<Call>({{"dgates: expected to be given with gates, not given", [](Call& c) { c.args.dgates = {}; }},
                          {"sorted_scattered_idxs: expected to be given with gates, not given",
                           [](Call& c) { c.args.sorted_scattered_idxs = {}; }},
                          {"sorted_scattered_idxs: expected not to be given without gates, got shape [6]",
                           [](Call& c) { c.args.gates = c.args.dgates = {}; }},
                          {"dgates: expected not to be given without gates, got shape [3, 2]",
                           [](Call& c) { c.args.gates = c.args.sorted_scattered_idxs = {}; }},
                          {"da: expected a multiple of problem.top_k = 4 rows with gates, got 6",
                           [](Call& c) { c.problem.top_k = 4; }}});
}

}  // namespace
}  // namespace smlora::check::test
