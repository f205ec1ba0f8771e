// Every member of every C struct arrives in the member of the same name.
#include "capi/convert.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace {

using namespace smlora;
using namespace smlora::capi;

/// A view that no other call of it has made: its data, shape and strides tell which one it is.
smlora_tensor distinct() {
    static std::int64_t count = 0;
    ++count;
    return {reinterpret_cast<void*>(0x1000 * count),
            static_cast<smlora_dtype>(count % 6),
            static_cast<std::int32_t>(1 + count % 4),
            {count, count + 100, count + 200, count + 300},
            {count + 1000, count + 1100, count + 1200, count + 1300}};
}

void expect_same(const Tensor& tensor, const smlora_tensor& original, const char* name) {
    SCOPED_TRACE(name);
    EXPECT_EQ(tensor.data, original.data);
    EXPECT_EQ(static_cast<std::int32_t>(tensor.dtype), original.dtype);
    ASSERT_EQ(tensor.ndim, original.ndim);
    for (std::size_t i = 0; i < static_cast<std::size_t>(original.ndim); ++i) {
        EXPECT_EQ(tensor.shape[i], original.shape[i]);
        EXPECT_EQ(tensor.strides[i], original.strides[i]);
    }
}

#define EXPECT_TENSOR(converted, original, member) expect_same((converted).member, (original).member, #member)

template <class Args, class Original>
void expect_same_routing(const Args& args, const Original& original) {
    EXPECT_TENSOR(args.routing, original.routing, sorted_expert_idxs);
    EXPECT_TENSOR(args.routing, original.routing, sorted_scattered_idxs);
    EXPECT_TENSOR(args.routing, original.routing, expert_offsets);
}

template <class Args, class Original>
void expect_same_workspace(const Args& args, const Original& original) {
    EXPECT_EQ(args.workspace.data, original.workspace.data);
    EXPECT_EQ(args.workspace.bytes, original.workspace.bytes);
}

smlora_routing distinct_routing() { return {distinct(), distinct(), distinct()}; }

smlora_workspace distinct_workspace() { return {reinterpret_cast<void*>(0xabc00), 4242}; }

std::string message_of(const std::function<void()>& body) {
    try {
        body();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
        return error.what();
    }
    return "nothing was thrown";
}

smlora_problem valid_problem() {
    smlora_problem problem;
    smlora_problem_init(&problem, sizeof problem);
    return problem;
}

TEST(ConvertProblem, EveryMemberArrives) {
    smlora_problem p = valid_problem();
    p.E = 11;
    p.K = 12;
    p.N = 13;
    p.R = 14;
    p.top_k = 15;
    p.dtype = SMLORA_FP16;
    p.adapter_dtype = SMLORA_FP32;
    p.gate_dtype = SMLORA_FP64;
    p.index_dtype = SMLORA_INT64;
    p.weight_layout = SMLORA_WEIGHT_ENK;
    p.x_rows = SMLORA_ROWS_GROUPED;
    p.y_rows = SMLORA_ROWS_TOKEN;
    p.bias = 1;
    p.gates = 0;
    Problem expected;
    expected.E = 11;
    expected.K = 12;
    expected.N = 13;
    expected.R = 14;
    expected.top_k = 15;
    expected.dtype = DType::fp16;
    expected.adapter_dtype = DType::fp32;
    expected.gate_dtype = DType::fp64;
    expected.index_dtype = DType::int64;
    expected.weight_layout = WeightLayout::enk;
    expected.x_rows = RowOrder::grouped;
    expected.y_rows = RowOrder::token;
    expected.bias = true;
    expected.gates = false;
    EXPECT_EQ(to_problem(&p), expected);
    p.bias = 0;
    p.gates = 1;
    expected.bias = false;
    expected.gates = true;
    EXPECT_EQ(to_problem(&p), expected);
}

TEST(ConvertProblem, InitGivesTheDefaultsOfCpp) {
    smlora_problem p;
    std::memset(&p, 0xab, sizeof p);
    smlora_problem_init(&p, sizeof p);
    EXPECT_EQ(p.struct_size, sizeof p);
    EXPECT_EQ(to_problem(&p), Problem{});
}

TEST(ConvertProblem, AnEnumeratorOrFlagOutOfRangeIsNamed) {
    const struct {
        std::int32_t smlora_problem::*member;
        const char* message;
    } cases[] = {{&smlora_problem::dtype, "problem.dtype: expected 0 to 5, got 6"},
                 {&smlora_problem::adapter_dtype, "problem.adapter_dtype: expected 0 to 5, got 6"},
                 {&smlora_problem::gate_dtype, "problem.gate_dtype: expected 0 to 5, got 6"},
                 {&smlora_problem::index_dtype, "problem.index_dtype: expected 0 to 5, got 6"},
                 {&smlora_problem::weight_layout, "problem.weight_layout: expected 0 to 1, got 6"},
                 {&smlora_problem::x_rows, "problem.x_rows: expected 0 to 2, got 6"},
                 {&smlora_problem::y_rows, "problem.y_rows: expected 0 to 2, got 6"},
                 {&smlora_problem::bias, "problem.bias: expected 0 or 1, got 6"},
                 {&smlora_problem::gates, "problem.gates: expected 0 or 1, got 6"},
                 {&smlora_problem::reserved, "problem.reserved: expected 0, got 6"}};
    for (const auto& c : cases) {
        smlora_problem p = valid_problem();
        p.*c.member = 6;
        EXPECT_EQ(message_of([&] { static_cast<void>(to_problem(&p)); }), c.message);
    }
    smlora_problem p = valid_problem();
    p.dtype = -1;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_problem(&p)); }), "problem.dtype: expected 0 to 5, got -1");
}

TEST(ConvertTensor, AllZeroIsNotGiven) { EXPECT_FALSE(to_tensor(smlora_tensor{}, "x").given()); }

TEST(ConvertTensor, EveryNumberOfDimensionsArrives) {
    for (std::int32_t ndim = 0; ndim <= SMLORA_MAX_NDIM; ++ndim) {
        smlora_tensor tensor = distinct();
        tensor.ndim = ndim;
        expect_same(to_tensor(tensor, "x"), tensor, "x");
    }
}

TEST(ConvertTensor, WhatIsWrongIsNamed) {
    smlora_tensor tensor = distinct();
    tensor.ndim = 5;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_tensor(tensor, "x")); }), "x.ndim: expected 0 to 4, got 5");
    tensor.ndim = -1;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_tensor(tensor, "x")); }), "x.ndim: expected 0 to 4, got -1");
    tensor.ndim = 2;
    tensor.dtype = 99;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_tensor(tensor, "x")); }), "x.dtype: expected 0 to 5, got 99");
    tensor.dtype = SMLORA_FP32;
    tensor.shape[1] = -3;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_tensor(tensor, "x")); }), "x.shape[1]: expected 0 or more, got -3");
}

TEST(ConvertArgs, Route) {
    smlora_route_args a;
    smlora_route_args_init(&a, sizeof a);
    a.top_idx = distinct();
    a.routing = distinct_routing();
    a.workspace = distinct_workspace();
    const RouteArgs args = to_args(&a);
    EXPECT_TENSOR(args, a, top_idx);
    expect_same_routing(args, a);
    expect_same_workspace(args, a);
}

TEST(ConvertArgs, Group) {
    smlora_group_args a;
    smlora_group_args_init(&a, sizeof a);
    a.x = distinct();
    a.gates = distinct();
    a.routing = distinct_routing();
    a.out = distinct();
    a.workspace = distinct_workspace();
    const GroupArgs args = to_args(&a);
    EXPECT_TENSOR(args, a, x);
    EXPECT_TENSOR(args, a, gates);
    EXPECT_TENSOR(args, a, out);
    expect_same_routing(args, a);
    expect_same_workspace(args, a);
}

TEST(ConvertArgs, Combine) {
    smlora_combine_args a;
    smlora_combine_args_init(&a, sizeof a);
    a.y = distinct();
    a.gates = distinct();
    a.out = distinct();
    a.workspace = distinct_workspace();
    const CombineArgs args = to_args(&a);
    EXPECT_TENSOR(args, a, y);
    EXPECT_TENSOR(args, a, gates);
    EXPECT_TENSOR(args, a, out);
    expect_same_workspace(args, a);
}

TEST(ConvertArgs, CombineBackward) {
    smlora_combine_backward_args a;
    smlora_combine_backward_args_init(&a, sizeof a);
    a.dout = distinct();
    a.y = distinct();
    a.gates = distinct();
    a.dy = distinct();
    a.dgates = distinct();
    a.workspace = distinct_workspace();
    const CombineBackwardArgs args = to_args(&a);
    EXPECT_TENSOR(args, a, dout);
    EXPECT_TENSOR(args, a, y);
    EXPECT_TENSOR(args, a, gates);
    EXPECT_TENSOR(args, a, dy);
    EXPECT_TENSOR(args, a, dgates);
    expect_same_workspace(args, a);
}

template <class Args, class CArgs>
void expect_activation(CArgs& a) {
    EXPECT_EQ(a.activation, static_cast<smlora_activation_kind>(Args{}.activation));
    EXPECT_EQ(a.layout, static_cast<smlora_gate_layout>(Args{}.layout));
    EXPECT_EQ(a.alpha, Args{}.alpha);
    EXPECT_EQ(a.limit, Args{}.limit);
    a.activation = SMLORA_SWIGLU_CLAMPED;
    a.layout = SMLORA_GATE_INTERLEAVED;
    a.alpha = 3;
    a.limit = 4;
    const Args args = to_args(&a);
    EXPECT_EQ(args.activation, Activation::swiglu_clamped);
    EXPECT_EQ(args.layout, GateLayout::interleaved);
    EXPECT_EQ(args.alpha, 3);
    EXPECT_EQ(args.limit, 4);
    a.layout = 2;
    EXPECT_THROW(static_cast<void>(to_args(&a)), Error);
    a.layout = 0;
    a.activation = 5;
    EXPECT_THROW(static_cast<void>(to_args(&a)), Error);
    a.activation = SMLORA_GEGLU_TANH;
    EXPECT_EQ(to_args(&a).activation, Activation::geglu_tanh);
}

TEST(ConvertArgs, Activation) {
    smlora_activation_args a;
    smlora_activation_args_init(&a, sizeof a);
    a.h = distinct();
    a.a = distinct();
    const ActivationArgs args = to_args(&a);
    EXPECT_TENSOR(args, a, h);
    EXPECT_TENSOR(args, a, a);
    expect_activation<ActivationArgs>(a);
}

TEST(ConvertArgs, ActivationBackward) {
    smlora_activation_backward_args a;
    smlora_activation_backward_args_init(&a, sizeof a);
    a.h = distinct();
    a.da = distinct();
    a.dh = distinct();
    a.a = distinct();
    const ActivationBackwardArgs args = to_args(&a);
    EXPECT_TENSOR(args, a, h);
    EXPECT_TENSOR(args, a, da);
    EXPECT_TENSOR(args, a, dh);
    EXPECT_TENSOR(args, a, a);
    expect_activation<ActivationBackwardArgs>(a);
}

TEST(Names, OfActivationsAndGateLayouts) {
    EXPECT_STREQ(smlora_activation_name(SMLORA_SWIGLU), "swiglu");
    EXPECT_STREQ(smlora_activation_name(SMLORA_SWIGLU_CLAMPED), "swiglu_clamped");
    EXPECT_EQ(smlora_activation_name(5), nullptr);
    EXPECT_STREQ(smlora_gate_layout_name(SMLORA_GATE_INTERLEAVED), "interleaved");
    EXPECT_EQ(smlora_gate_layout_name(-1), nullptr);
}

TEST(ConvertArgs, Forward) {
    smlora_forward_args a;
    smlora_forward_args_init(&a, sizeof a);
    EXPECT_EQ(a.scaling, ForwardArgs{}.scaling);
    a.x = distinct();
    a.W = distinct();
    a.A = distinct();
    a.B = distinct();
    a.bias = distinct();
    a.gates = distinct();
    a.routing = distinct_routing();
    a.y = distinct();
    a.xa = distinct();
    a.workspace = distinct_workspace();
    a.scaling = 0.25F;
    const ForwardArgs args = to_args(&a);
    EXPECT_TENSOR(args, a, x);
    EXPECT_TENSOR(args, a, W);
    EXPECT_TENSOR(args, a, A);
    EXPECT_TENSOR(args, a, B);
    EXPECT_TENSOR(args, a, bias);
    EXPECT_TENSOR(args, a, gates);
    EXPECT_TENSOR(args, a, y);
    EXPECT_TENSOR(args, a, xa);
    EXPECT_EQ(args.scaling, 0.25F);
    expect_same_routing(args, a);
    expect_same_workspace(args, a);
    a.reserved = 1;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_args(&a)); }), "args.reserved: expected 0, got 1");
}

TEST(ConvertArgs, BackwardInput) {
    smlora_backward_input_args a;
    smlora_backward_input_args_init(&a, sizeof a);
    EXPECT_EQ(a.scaling, BackwardInputArgs{}.scaling);
    a.dy = distinct();
    a.W = distinct();
    a.A = distinct();
    a.B = distinct();
    a.gates = distinct();
    a.routing = distinct_routing();
    a.dx = distinct();
    a.yb = distinct();
    a.dgates = distinct();
    a.x = distinct();
    a.bias = distinct();
    a.workspace = distinct_workspace();
    a.scaling = 0.5F;
    const BackwardInputArgs args = to_args(&a);
    EXPECT_TENSOR(args, a, dy);
    EXPECT_TENSOR(args, a, W);
    EXPECT_TENSOR(args, a, A);
    EXPECT_TENSOR(args, a, B);
    EXPECT_TENSOR(args, a, gates);
    EXPECT_TENSOR(args, a, dx);
    EXPECT_TENSOR(args, a, yb);
    EXPECT_TENSOR(args, a, dgates);
    EXPECT_TENSOR(args, a, x);
    EXPECT_TENSOR(args, a, bias);
    EXPECT_EQ(args.scaling, 0.5F);
    expect_same_routing(args, a);
    expect_same_workspace(args, a);
    a.reserved = 1;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_args(&a)); }), "args.reserved: expected 0, got 1");
}

TEST(ConvertArgs, BackwardLora) {
    smlora_backward_lora_args a;
    smlora_backward_lora_args_init(&a, sizeof a);
    EXPECT_EQ(a.scaling, BackwardLoraArgs{}.scaling);
    a.x = distinct();
    a.dy = distinct();
    a.A = distinct();
    a.B = distinct();
    a.gates = distinct();
    a.routing = distinct_routing();
    a.xa = distinct();
    a.yb = distinct();
    a.dA = distinct();
    a.dB = distinct();
    a.workspace = distinct_workspace();
    a.scaling = 2.0F;
    const BackwardLoraArgs args = to_args(&a);
    EXPECT_TENSOR(args, a, x);
    EXPECT_TENSOR(args, a, dy);
    EXPECT_TENSOR(args, a, A);
    EXPECT_TENSOR(args, a, B);
    EXPECT_TENSOR(args, a, gates);
    EXPECT_TENSOR(args, a, xa);
    EXPECT_TENSOR(args, a, yb);
    EXPECT_TENSOR(args, a, dA);
    EXPECT_TENSOR(args, a, dB);
    EXPECT_EQ(args.scaling, 2.0F);
    expect_same_routing(args, a);
    expect_same_workspace(args, a);
    a.reserved = 1;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_args(&a)); }), "args.reserved: expected 0, got 1");
}

TEST(ConvertEngineOptions, InitGivesTheDefaultsOfCpp) {
    smlora_engine_options o;
    std::memset(&o, 0xab, sizeof o);
    smlora_engine_options_init(&o, sizeof o);
    const EngineOptions options = to_options(&o);
    EXPECT_EQ(options.backend, Backend::cuda);
    EXPECT_EQ(options.device, 0);
    EXPECT_FALSE(options.cache_root.has_value());
    EXPECT_FALSE(options.cache_layers.has_value());
    EXPECT_FALSE(options.shipped_layer.has_value());
    EXPECT_FALSE(options.cache_limit_bytes.has_value());
    EXPECT_EQ(options.threads, 0);
    EXPECT_FALSE(options.tuning.has_value());
    EXPECT_FALSE(options.tuning_seconds.has_value());
    EXPECT_FALSE(options.tuning_memory_bytes.has_value());
    EXPECT_FALSE(options.log);
}

TEST(ConvertEngineOptions, EveryMemberArrives) {
    std::vector<std::string> lines;
    const char* layers[] = {"/layers/one", "/layers/two"};
    smlora_engine_options o;
    smlora_engine_options_init(&o, sizeof o);
    o.backend = SMLORA_BACKEND_CPU;
    o.device = 3;
    o.cache_root = "/a/root";
    o.cache_layers = layers;
    o.cache_layer_count = 2;
    o.shipped_layer = "/shipped";
    o.cache_limit_bytes = 12345;
    o.threads = 7;
    o.tuning = SMLORA_TUNING_OFF;
    o.tuning_seconds = 2.5;
    o.tuning_memory_bytes = 1234;
    o.log = [](smlora_log_level level, const char* line, void* user) {
        static_cast<std::vector<std::string>*>(user)->push_back(std::to_string(level) + " " + line);
    };
    o.log_user = &lines;
    const EngineOptions options = to_options(&o);
    EXPECT_EQ(options.backend, Backend::cpu);
    EXPECT_EQ(options.device, 3);
    EXPECT_EQ(options.cache_root, "/a/root");
    EXPECT_EQ(options.cache_layers, (std::vector<std::filesystem::path>{"/layers/one", "/layers/two"}));
    EXPECT_EQ(options.shipped_layer, "/shipped");
    EXPECT_EQ(options.cache_limit_bytes, 12345u);
    EXPECT_EQ(options.threads, 7);
    EXPECT_EQ(options.tuning, TuningPolicy::off);
    EXPECT_EQ(options.tuning_seconds, 2.5);
    EXPECT_EQ(options.tuning_memory_bytes, 1234u);
    options.log(LogLevel::warning, std::string_view("a line that goes on").substr(0, 6));
    EXPECT_EQ(lines, std::vector<std::string>{"2 a line"});
}

TEST(ConvertEngineOptions, LayersGivenButEmptyMeanNone) {
    const char* none[] = {nullptr};
    smlora_engine_options o;
    smlora_engine_options_init(&o, sizeof o);
    o.cache_layers = none;
    EXPECT_EQ(to_options(&o).cache_layers, std::vector<std::filesystem::path>{});
}

TEST(ConvertEngineOptions, ACallerWithoutTheLastMemberIsServed) {
    smlora_engine_options o;
    smlora_engine_options_init(&o, sizeof o);
    o.threads = 7;
    o.shipped_layer = "beyond the caller's struct";
    o.struct_size = offsetof(smlora_engine_options, shipped_layer);
    EXPECT_EQ(to_options(&o).threads, 7);
    EXPECT_FALSE(to_options(&o).shipped_layer.has_value());
    o.struct_size -= 8;
    EXPECT_NE(message_of([&] { static_cast<void>(to_options(&o)); }).find("options.struct_size: expected at least"),
              std::string::npos);
}

TEST(ConvertEngineOptions, WhatIsWrongIsNamed) {
    const char* layers[] = {"/one", nullptr};
    smlora_engine_options o;
    smlora_engine_options_init(&o, sizeof o);
    o.backend = 2;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(&o)); }), "options.backend: expected 0 to 1, got 2");
    o.backend = SMLORA_BACKEND_CPU;
    o.cache_layer_count = 2;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(&o)); }),
              "options.cache_layers: expected a pointer, got null");
    o.cache_layers = layers;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(&o)); }),
              "options.cache_layers[1]: expected a pointer, got null");
    o.cache_layer_count = 1;
    o.tuning = 4;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(&o)); }), "options.tuning: expected 0 to 3, got 4");
}

TEST(ConvertPrewarmOptions, EveryMemberArrives) {
    smlora_problem problems[] = {valid_problem(), valid_problem()};
    problems[0].E = 8;
    problems[1].E = 16;
    const std::int64_t tokens[] = {64, 128, 256};
    const char* archs[] = {"sm_80", "sm_90a"};
    smlora_prewarm_options o;
    smlora_prewarm_options_init(&o, sizeof o);
    o.problems = problems;
    o.problem_count = 2;
    o.tokens = tokens;
    o.token_count = 3;
    o.archs = archs;
    o.arch_count = 2;
    o.jobs = 5;
    const smlora_prewarm_activation activations[] = {{SMLORA_GEGLU, SMLORA_GATE_INTERLEAVED, 96, SMLORA_FP16, 0},
                                                     {SMLORA_SWIGLU, SMLORA_GATE_HALVES, 64, SMLORA_BF16, 0}};
    o.activations = activations;
    o.activation_count = 2;
    const PrewarmOptions options = to_options(o);
    ASSERT_EQ(options.problems.size(), 2u);
    EXPECT_EQ(options.problems[0].E, 8);
    EXPECT_EQ(options.problems[1].E, 16);
    EXPECT_EQ(options.tokens, (std::vector<std::int64_t>{64, 128, 256}));
    EXPECT_EQ(options.archs, (std::vector<std::string>{"sm_80", "sm_90a"}));
    EXPECT_EQ(options.jobs, 5);
    ASSERT_EQ(options.activations.size(), 2u);
    EXPECT_EQ(options.activations[0].activation, Activation::geglu);
    EXPECT_EQ(options.activations[0].layout, GateLayout::interleaved);
    EXPECT_EQ(options.activations[0].width, 96);
    EXPECT_EQ(options.activations[0].dtype, DType::fp16);
    EXPECT_EQ(options.activations[1].width, 64);
}

TEST(ConvertPrewarmOptions, AnActivationThatIsNoneIsNamed) {
    smlora_prewarm_activation activation{};
    smlora_prewarm_options o;
    smlora_prewarm_options_init(&o, sizeof o);
    o.activations = &activation;
    o.activation_count = 1;
    activation.activation = 5;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(o)); }),
              "options.activations[0].activation: expected 0 to 4, got 5");
}

TEST(ConvertPrewarmOptions, ProblemsOfALaterHeaderAreSteppedOverByTheirOwnSize) {
    struct LaterProblem {
        smlora_problem known;
        std::int64_t unknown;
    };
    LaterProblem problems[] = {{valid_problem(), 0}, {valid_problem(), 0}};
    for (LaterProblem& problem : problems) problem.known.struct_size = sizeof(LaterProblem);
    problems[1].known.E = 16;
    smlora_prewarm_options o;
    smlora_prewarm_options_init(&o, sizeof o);
    o.problems = &problems[0].known;
    o.problem_count = 2;
    EXPECT_EQ(to_options(o).problems.at(1).E, 16);
}

TEST(ConvertPrewarmOptions, ArraysThatAreMissingAreNamed) {
    smlora_prewarm_options o;
    smlora_prewarm_options_init(&o, sizeof o);
    o.problem_count = 1;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(o)); }), "options.problems: expected a pointer, got null");
    o.problem_count = 0;
    o.token_count = 1;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(o)); }), "options.tokens: expected a pointer, got null");
    o.token_count = 0;
    o.arch_count = 1;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(o)); }), "options.archs: expected a pointer, got null");
    o.arch_count = 0;
    o.activation_count = 1;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(o)); }),
              "options.activations: expected a pointer, got null");
}

}  // namespace
