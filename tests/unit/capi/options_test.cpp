// What is converted by hand in the options of engines, of prewarming and of tuning: arrays, callbacks and defaults.
#include "unit/capi/c_structs.hpp"

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::capi::test {
namespace {

TEST(ConvertEngineOptions, LayersAndLogArrive) {
    std::vector<std::string> lines;
    const char* layers[] = {"/layers/one", "/layers/two"};
    auto o = initialised<smlora_engine_options>();
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
    EXPECT_EQ(capi::to_c(LogLevel::debug), 0);
    EXPECT_EQ(capi::to_c(LogLevel::info), 1);
    EXPECT_EQ(capi::to_c(LogLevel::warning), 2);
    EXPECT_EQ(capi::to_c(LogLevel::notice), 3);
}

TEST(ConvertEngineOptions, EveryTuningPolicyArrives) {
    auto o = initialised<smlora_engine_options>();
    EXPECT_EQ(to_options(&o).tuning, std::nullopt);
    o.tuning = SMLORA_TUNING_OFF;
    EXPECT_EQ(to_options(&o).tuning, TuningPolicy::off);
    o.tuning = SMLORA_TUNING_RECORD_ONLY;
    EXPECT_EQ(to_options(&o).tuning, TuningPolicy::record_only);
}

TEST(ConvertEngineOptions, EveryDeterminismArrives) {
    auto o = initialised<smlora_engine_options>();
    EXPECT_EQ(to_options(&o).determinism, std::nullopt);
    o.determinism = SMLORA_DETERMINISM_BATCH;
    EXPECT_EQ(to_options(&o).determinism, Determinism::batch);
    o.determinism = 3;
    EXPECT_EQ(message_of([&] { static_cast<void>(to_options(&o)); }), "options.determinism: expected 0 to 2, got 3");
}

TEST(ConvertEngineOptions, LayersGivenButEmptyMeanNone) {
    const char* none[] = {nullptr};
    auto o = initialised<smlora_engine_options>();
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
    auto o = initialised<smlora_engine_options>();
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
    smlora_problem problems[] = {initialised<smlora_problem>(), initialised<smlora_problem>()};
    problems[0].E = 8;
    problems[1].E = 16;
    const std::int64_t tokens[] = {64, 128, 256};
    const char* archs[] = {"sm_80", "sm_90a"};
    auto o = initialised<smlora_prewarm_options>();
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
    ASSERT_EQ(smlora_usual_format(SMLORA_ENCODING_MXFP4, &problems[1].weights), SMLORA_OK);
    const PrewarmOptions options = to_options(o);
    ASSERT_EQ(options.problems.size(), 2u);
    EXPECT_EQ(options.problems[0].E, 8);
    EXPECT_EQ(options.problems[0].weights, WeightFormat{});
    EXPECT_EQ(options.problems[1].weights, usual_format(Encoding::mxfp4));
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
    auto o = initialised<smlora_prewarm_options>();
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
    LaterProblem problems[] = {{initialised<smlora_problem>(), 0}, {initialised<smlora_problem>(), 0}};
    for (LaterProblem& problem : problems) problem.known.struct_size = sizeof(LaterProblem);
    problems[1].known.E = 16;
    auto o = initialised<smlora_prewarm_options>();
    o.problems = &problems[0].known;
    o.problem_count = 2;
    EXPECT_EQ(to_options(o).problems.at(1).E, 16);
}

TEST(ConvertPrewarmOptions, ArraysThatAreMissingAreNamed) {
    auto o = initialised<smlora_prewarm_options>();
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
    auto o = initialised<smlora_tune_options>();
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
    auto o = initialised<smlora_tune_options>();
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
}  // namespace smlora::capi::test
