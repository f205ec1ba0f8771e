// Every member of every C struct arrives in the member of the same name, by the lists of capi/members.hpp.
#include "capi/convert.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

namespace smlora::capi {

// The smallest struct sizes that are accepted are those of today: see read_struct.
template <class C>
void init(C& c);
#define SMLORA_INIT(name)                                    \
    template <>                                              \
    void init(smlora_##name& c) {                            \
        std::memset(static_cast<void*>(&c), 0xab, sizeof c); \
        smlora_##name##_init(&c, sizeof c);                  \
    }
SMLORA_INIT(problem)
SMLORA_INIT(engine_options)
SMLORA_INIT(prewarm_options)
SMLORA_INIT(tune_options)
SMLORA_INIT(route_args)
SMLORA_INIT(group_args)
SMLORA_INIT(combine_args)
SMLORA_INIT(combine_backward_args)
SMLORA_INIT(activation_args)
SMLORA_INIT(activation_backward_args)
SMLORA_INIT(dequantize_args)
SMLORA_INIT(forward_args)
SMLORA_INIT(backward_input_args)
SMLORA_INIT(backward_lora_args)
#undef SMLORA_INIT

namespace {

std::string message_of(const std::function<void()>& body) {
    try {
        body();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
        return error.what();
    }
    return "nothing was thrown";
}

Problem convert(const smlora_problem& c) { return to_problem(&c); }
EngineOptions convert(const smlora_engine_options& c) { return to_options(&c); }
PrewarmOptions convert(const smlora_prewarm_options& c) { return to_options(c); }
TuneOptions convert(const smlora_tune_options& c) { return to_options(&c); }
template <class C>
auto convert(const C& c) {
    return to_args(&c);
}

/// How messages call the members of a struct.
template <class C>
std::string object_of() {
    if constexpr (std::is_same_v<C, smlora_problem>) return "problem.";
    if constexpr (std::is_same_v<C, smlora_engine_options> || std::is_same_v<C, smlora_tune_options>) return "options.";
    return "";
}

// ---- values that no other call of it has made --------------------------------------------------------------------

/// The next number, small enough for every type.
int next() {
    static int count = 0;
    return ++count;
}

/// Its data, shape and strides tell which one it is.
smlora_tensor distinct_tensor() {
    const std::int64_t n = next();
    return {reinterpret_cast<void*>(0x1000 * n),
            static_cast<smlora_dtype>(n % 6),
            static_cast<std::int32_t>(1 + n % 4),
            {n, n + 100, n + 200, n + 300},
            {n + 1000, n + 1100, n + 1200, n + 1300}};
}

/// `CppType` tells an enumerator or a flag from a number.
template <class CppType, class C>
void fill(C& c) {
    if constexpr (std::is_same_v<C, smlora_tensor>) {
        c = distinct_tensor();
    } else if constexpr (requires { typename Members<C>::Cpp; }) {
        for_each_member<C>([&]<class M>(const M& member) {
            if constexpr (requires { member.cpp; }) {
                fill<std::remove_cvref_t<decltype(typename Members<C>::Cpp{}.*member.cpp)>>(c.*member.c);
            }
        });
    } else if constexpr (std::is_same_v<C, const char*>) {
        static std::deque<std::string> paths;
        c = paths.emplace_back("/folder/" + std::to_string(next())).c_str();
    } else if constexpr (std::is_pointer_v<C>) {
        c = reinterpret_cast<C>(static_cast<std::intptr_t>(next()));
    } else if constexpr (std::is_enum_v<CppType> || std::is_same_v<CppType, bool> ||
                         std::is_same_v<CppType, std::optional<TuningPolicy>>) {
        c = 1;
    } else {
        c = static_cast<C>(next());
    }
}

// ---- the same value on both sides --------------------------------------------------------------------------------

void expect_same(const Tensor& cpp, const smlora_tensor& c) {
    EXPECT_EQ(cpp.data, c.data);
    EXPECT_EQ(static_cast<std::int32_t>(cpp.dtype), c.dtype);
    ASSERT_EQ(cpp.ndim, c.ndim);
    for (std::size_t i = 0; i < static_cast<std::size_t>(c.ndim); ++i) {
        EXPECT_EQ(cpp.shape[i], c.shape[i]);
        EXPECT_EQ(cpp.strides[i], c.strides[i]);
    }
}

void expect_same(const std::optional<TuningPolicy>& cpp, smlora_tuning c) {
    EXPECT_EQ(c, SMLORA_TUNING_FIRST_USE);
    EXPECT_EQ(cpp, TuningPolicy::first_use);
}

template <class Cpp, class C>
void expect_same(const Cpp& cpp, const C& c) {
    if constexpr (requires { typename Members<C>::Cpp; }) {
        for_each_member<C>([&](const auto& member) {
            if constexpr (requires { member.cpp; }) {
                SCOPED_TRACE(member.name);
                expect_same(cpp.*member.cpp, c.*member.c);
            }
        });
    } else if constexpr (std::is_enum_v<Cpp> || std::is_same_v<Cpp, bool>) {
        EXPECT_EQ(static_cast<std::int32_t>(cpp), c);
    } else {
        EXPECT_EQ(cpp, c);
    }
}

// ---- every struct ------------------------------------------------------------------------------------------------

/// What a member is initialised from when members are counted; never called.
struct Anything {
    template <class T>
    operator T() const;
};

/// The members of an aggregate.
template <class T, class... Given>
consteval std::size_t member_count() {
    if constexpr (requires { T{Given{}..., Anything{}}; }) {
        return member_count<T, Given..., Anything>();
    } else {
        return sizeof...(Given);
    }
}

template <class C>
consteval std::size_t listed() {
    std::size_t count = Members<C>::by_hand;
    for_each_member<C>([&](const auto& member) {
        if constexpr (requires { member.cpp; }) ++count;
    });
    return count;
}

template <class C>
class Convert : public ::testing::Test {};

using Structs = ::testing::Types<smlora_problem, smlora_engine_options, smlora_prewarm_options, smlora_tune_options,
                                 smlora_route_args, smlora_group_args, smlora_combine_args,
                                 smlora_combine_backward_args, smlora_activation_args, smlora_activation_backward_args,
                                 smlora_dequantize_args, smlora_forward_args, smlora_backward_input_args, smlora_backward_lora_args>;
TYPED_TEST_SUITE(Convert, Structs);

TYPED_TEST(Convert, EveryMemberIsListedAndArrives) {
    using Cpp = typename Members<TypeParam>::Cpp;
    static_assert(listed<TypeParam>() == member_count<Cpp>(), "a member of the C++ struct is missing from the list");
    TypeParam c;
    init(c);
    fill<Cpp>(c);
    expect_same(convert(c), c);
}

static_assert(listed<smlora_routing>() == member_count<Routing>());
static_assert(listed<smlora_double_quantization>() == member_count<DoubleQuantization>());
static_assert(listed<smlora_workspace>() == member_count<Workspace>());
static_assert(listed<smlora_prewarm_activation>() == member_count<PrewarmActivation>());

TYPED_TEST(Convert, InitGivesTheDefaultsOfCpp) {
    using Cpp = typename Members<TypeParam>::Cpp;
    TypeParam c;
    init(c);
    EXPECT_EQ(c.struct_size, sizeof c);
    const Cpp defaults{}, converted = convert(c);
    for_each_member<TypeParam>([&](const auto& member) {
        if constexpr (requires { member.cpp; }) {
            const auto& value = defaults.*member.cpp;
            SCOPED_TRACE(member.name);
            if constexpr (requires { value == value; }) {
                EXPECT_TRUE(converted.*member.cpp == value);
            } else if constexpr (requires { value.given(); }) {
                EXPECT_FALSE((converted.*member.cpp).given());
            }
        }
    });
}

TYPED_TEST(Convert, AnEnumeratorOrFlagOutOfRangeIsNamed) {
    for_each_member<TypeParam>([&](const auto& member) {
        if constexpr (requires { member.cpp; }) {
            using CppType = std::remove_cvref_t<decltype(typename Members<TypeParam>::Cpp{}.*member.cpp)>;
            if constexpr (std::is_enum_v<CppType> || std::is_same_v<CppType, bool>) {
                for (const std::int32_t value : {-1, 10}) {
                    TypeParam c;
                    init(c);
                    c.*member.c = value;
                    const std::string message = message_of([&] { static_cast<void>(convert(c)); });
                    EXPECT_EQ(message.rfind(object_of<TypeParam>() + member.name + ": expected 0 ", 0), 0U) << message;
                    EXPECT_NE(message.find(", got " + std::to_string(value)), std::string::npos) << message;
                }
            }
        }
    });
}

TYPED_TEST(Convert, AReservedMemberIsZero) {
    if constexpr (requires(TypeParam c) { c.reserved; }) {
        TypeParam c;
        init(c);
        c.reserved = 1;
        const std::string message = message_of([&] { static_cast<void>(convert(c)); });
        EXPECT_NE(message.find(".reserved: expected 0, got 1"), std::string::npos) << message;
    }
}

// ---- what is special to one of them ------------------------------------------------------------------------------

smlora_problem valid_problem() {
    smlora_problem problem;
    init(problem);
    return problem;
}

TEST(ConvertProblem, BothFlagsArrive) {
    smlora_problem p = valid_problem();
    p.bias = 1;
    EXPECT_TRUE(to_problem(&p).bias);
    EXPECT_FALSE(to_problem(&p).gates);
    p.bias = 0;
    p.gates = 1;
    EXPECT_FALSE(to_problem(&p).bias);
    EXPECT_TRUE(to_problem(&p).gates);
}

TEST(ConvertProblem, TheRangeOfAnEnumerationIsSaid) {
    smlora_problem p = valid_problem();
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
    smlora_route_args a;
    init(a);
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

TEST(ConvertEngineOptions, LayersAndLogArrive) {
    std::vector<std::string> lines;
    const char* layers[] = {"/layers/one", "/layers/two"};
    smlora_engine_options o;
    init(o);
    o.cache_layers = layers;
    o.cache_layer_count = 2;
    o.log = [](smlora_log_level level, const char* line, void* user) {
        static_cast<std::vector<std::string>*>(user)->push_back(std::to_string(level) + " " + line);
    };
    o.log_user = &lines;
    const EngineOptions options = to_options(&o);
    EXPECT_EQ(options.cache_layers, (std::vector<std::filesystem::path>{"/layers/one", "/layers/two"}));
    options.log(LogLevel::warning, std::string_view("a line that goes on").substr(0, 6));
    EXPECT_EQ(lines, std::vector<std::string>{"2 a line"});
}

TEST(ConvertEngineOptions, LogLevelsKeepTheirNumbersInC) {
    EXPECT_EQ(to_c(LogLevel::debug), 0);
    EXPECT_EQ(to_c(LogLevel::info), 1);
    EXPECT_EQ(to_c(LogLevel::warning), 2);
    EXPECT_EQ(to_c(LogLevel::notice), 3);
}

TEST(ConvertEngineOptions, EveryTuningPolicyArrives) {
    smlora_engine_options o;
    init(o);
    EXPECT_EQ(to_options(&o).tuning, std::nullopt);
    o.tuning = SMLORA_TUNING_OFF;
    EXPECT_EQ(to_options(&o).tuning, TuningPolicy::off);
    o.tuning = SMLORA_TUNING_RECORD_ONLY;
    EXPECT_EQ(to_options(&o).tuning, TuningPolicy::record_only);
}

TEST(ConvertEngineOptions, LayersGivenButEmptyMeanNone) {
    const char* none[] = {nullptr};
    smlora_engine_options o;
    init(o);
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
    init(o);
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

TEST(ConvertPrewarmOptions, ArraysArrive) {
    smlora_problem problems[] = {valid_problem(), valid_problem()};
    problems[0].E = 8;
    problems[1].E = 16;
    const std::int64_t tokens[] = {64, 128, 256};
    const char* archs[] = {"sm_80", "sm_90a"};
    smlora_prewarm_options o;
    init(o);
    o.problems = problems;
    o.problem_count = 2;
    o.tokens = tokens;
    o.token_count = 3;
    o.archs = archs;
    o.arch_count = 2;
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
    init(o);
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
    init(o);
    o.problems = &problems[0].known;
    o.problem_count = 2;
    EXPECT_EQ(to_options(o).problems.at(1).E, 16);
}

TEST(ConvertPrewarmOptions, ArraysThatAreMissingAreNamed) {
    smlora_prewarm_options o;
    init(o);
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

TEST(ConvertTuneOptions, TokensAndProgressArrive) {
    const std::int64_t tokens[] = {64, 128};
    smlora_tune_options o;
    init(o);
    o.tokens = tokens;
    o.token_count = 2;
    std::string heard;
    o.progress_user = &heard;
    o.progress = [](const smlora_tune_progress* p, void* user) -> std::int32_t {
        *static_cast<std::string*>(user) += std::to_string(p->struct_size == sizeof *p) + std::to_string(p->tokens) +
                                            p->work + p->phase + std::to_string(p->done) + std::to_string(p->total) +
                                            p->best + std::to_string(p->best_seconds);
        return p->done == 2 ? 1 : 0;
    };
    const TuneOptions options = to_options(&o);
    EXPECT_EQ(options.tokens, (std::vector<std::int64_t>{64, 128}));
    EXPECT_TRUE(options.progress({8, "dx", "timing", 1, 3, "c1", 0.5}));
    EXPECT_EQ(heard, "18dxtiming13c10.500000");
    EXPECT_FALSE(options.progress({8, "dx", "timing", 2, 3, "", 0}));
}

TEST(ConvertTuneOptions, NullGivesTheDefaultsOfCpp) {
    const TuneOptions expected;
    const TuneOptions options = to_options(static_cast<const smlora_tune_options*>(nullptr));
    EXPECT_EQ(options.tokens, expected.tokens);
    EXPECT_EQ(options.seconds, expected.seconds);
    EXPECT_EQ(options.memory_bytes, expected.memory_bytes);
    EXPECT_EQ(options.candidates, expected.candidates);
    EXPECT_EQ(options.rounds, expected.rounds);
    EXPECT_EQ(options.skew, expected.skew);
    EXPECT_EQ(options.again, expected.again);
    EXPECT_FALSE(options.progress);
}

TEST(ConvertTuneOptions, WhatIsWrongIsNamed) {
    smlora_tune_options o;
    init(o);
    o.token_count = 1;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(&o)); }), "options.tokens: expected a pointer, got null");
    o.token_count = 0;
    o.skew = 3;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(&o)); }), "options.skew: expected 0 to 2, got 3");
    o.skew = 0;
    o.again = 2;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(&o)); }), "options.again: expected 0 or 1, got 2");
}

}  // namespace
}  // namespace smlora::capi
