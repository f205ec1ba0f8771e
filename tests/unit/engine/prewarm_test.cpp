// Prewarming: each kernel once, on any number of threads, into the cache.
#include <smlora/prewarm.hpp>

#include <smlora/cache.hpp>
#include <smlora/error.hpp>
#include <smlora/system.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace smlora {
namespace {

std::filesystem::path make_folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "smlora_prewarm_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed for " + pattern);
    return pattern;
}

Engine engine(const std::filesystem::path& root) {
    EngineOptions options;
    options.backend = Backend::cpu;
    options.cache_root = root;
    options.cache_layers.emplace();
    options.threads = 2;
    return Engine(std::move(options));
}

PrewarmOptions small_options() {
    Problem problem;
    problem.E = 4;
    problem.K = 64;
    problem.N = 32;
    problem.R = 4;
    problem.top_k = 2;
    PrewarmOptions options;
    options.problems = {problem};
    options.tokens = {64};
    options.archs = {"sm_90a"};
    return options;
}

class Prewarm : public testing::Test {
 protected:
    Prewarm() : root_(make_folder()) {}
    ~Prewarm() override {
        std::error_code ignored;
        std::filesystem::remove_all(root_, ignored);
    }

    void SetUp() override {
        if (!system_info().nvrtc_found) GTEST_SKIP() << "there is no NVRTC";
    }

    std::filesystem::path root_;
    PrewarmOptions options_ = small_options();
};

/// One cache is filled for several tests, and copied for one that writes to it.
class PrewarmTwice : public Prewarm {
 protected:
    static void SetUpTestSuite() {
        if (!system_info().nvrtc_found) return;
        warm_root = make_folder();
        PrewarmOptions options = small_options();
        options.jobs = 3;
        std::atomic<int> inside{0};
        report = prewarm(engine(warm_root), options, [&](const PrewarmProgress& progress) {
            alone = alone && ++inside == 1;
            told.push_back(progress);
            kernels.emplace(progress.kernel);
            --inside;
        });
    }

    static void TearDownTestSuite() {
        std::error_code ignored;
        std::filesystem::remove_all(warm_root, ignored);
    }

    static inline std::filesystem::path warm_root;
    static inline PrewarmReport report;
    static inline std::vector<PrewarmProgress> told;  // its texts are gone
    static inline std::set<std::string> kernels;
    static inline bool alone = true;
};

TEST_F(PrewarmTwice, TellsOfEveryKernelOnceAndOneAtATime) {
    EXPECT_TRUE(alone);
    ASSERT_EQ(told.size(), report.kernels);
    EXPECT_EQ(kernels.size(), report.kernels);
    for (std::size_t i = 0; i < told.size(); ++i) {
        EXPECT_EQ(told[i].done, i + 1);
        EXPECT_EQ(told[i].total, report.kernels);
        EXPECT_EQ(told[i].compiled, i + 1);
        EXPECT_GT(told[i].compile_seconds, 0);
        EXPECT_EQ(told[i].compiling.empty(), i + 1 == told.size());
    }
    EXPECT_EQ(report.compiled, report.kernels);
    EXPECT_EQ(report.found, 0U);
    EXPECT_GT(report.compile_seconds, 0);
}

TEST_F(PrewarmTwice, ASecondTimeFindsEverythingAndASingleJobTellsWhatComesNext) {
    options_.jobs = 1;
    std::string expected;
    const PrewarmReport again = prewarm(engine(warm_root), options_, [&](const PrewarmProgress& progress) {
        EXPECT_EQ(progress.compiled, 0U);
        EXPECT_EQ(progress.compile_seconds, 0);
        if (progress.done > 1) {
            EXPECT_EQ(progress.kernel, expected);
        }
        expected = progress.compiling;
    });
    EXPECT_EQ(expected, "");
    EXPECT_EQ(again.kernels, report.kernels);
    EXPECT_EQ(again.compiled, 0U);
    EXPECT_EQ(again.found, report.kernels);
    EXPECT_EQ(again.compile_seconds, 0);
}

TEST_F(PrewarmTwice, ACheckSaysWhatIsThereAndCompilesNothing) {
    options_.check_only = true;
    const PrewarmReport warm = prewarm(engine(warm_root), options_);
    EXPECT_EQ(warm.kernels, report.kernels);
    EXPECT_EQ(warm.found, report.kernels);
    EXPECT_EQ(warm.compiled, 0U);
    const PrewarmReport cold = prewarm(engine(root_), options_);
    EXPECT_EQ(cold.kernels, report.kernels);
    EXPECT_EQ(cold.found, 0U);
    EXPECT_EQ(cold.compiled, 0U);
    EXPECT_EQ(cache_stats(engine(root_)).entries, 0U);
}

TEST_F(PrewarmTwice, CountsThePiecesOfWorkWhoseFastestKernelIsRecorded) {
    EXPECT_GT(report.works, 0U);
    EXPECT_EQ(report.recorded, 0U);
    options_.tokens = {64, 4096};
    options_.check_only = true;
    EXPECT_EQ(prewarm(engine(warm_root), options_).works, 2 * report.works);
}

TEST_F(PrewarmTwice, CompilesAKernelThatSeveralProblemsShareOnce) {
    Problem other = options_.problems[0];
    other.bias = true;  // the same routing and gathering, another product
    options_.problems = {options_.problems[0], other, options_.problems[0]};
    options_.archs = {"sm_90a", "sm_90a"};
    options_.tokens = {64, 64};
    std::filesystem::copy(warm_root, root_, std::filesystem::copy_options::recursive);
    const PrewarmReport both = prewarm(engine(root_), options_);
    EXPECT_EQ(both.kernels, both.found + both.compiled);
    EXPECT_EQ(both.found, report.kernels);
    EXPECT_GT(both.compiled, 0U);
    EXPECT_LT(both.compiled, report.kernels);
}

TEST_F(PrewarmTwice, KernelsWithoutGatesAreTheSameWhateverTypeGatesHave) {
    const DType gate_dtype = options_.problems[0].gate_dtype;
    options_.problems[0].gate_dtype = gate_dtype == DType::fp32 ? DType::bf16 : DType::fp32;
    std::filesystem::copy(warm_root, root_, std::filesystem::copy_options::recursive);
    std::set<std::string> compiled;
    (void)prewarm(engine(root_), options_, [&](const PrewarmProgress& progress) {
        if (progress.compile_seconds > 0) compiled.emplace(progress.kernel);
    });
    // combine and the gates' own gradient take gates with any problem.
    EXPECT_FALSE(compiled.empty());
    for (const std::string& kernel : compiled) {
        EXPECT_TRUE(kernel.find("HAS_GATES=1") != std::string::npos || kernel.starts_with("gate_gradient")) << kernel;
    }
}

TEST_F(Prewarm, WhatTheCallerThrowsStopsItAndWhatWasCompiledStays) {
    options_.jobs = 2;
    std::size_t calls = 0;
    const auto stop_at_two = [&calls](const PrewarmProgress&) {
        if (++calls == 2) throw std::runtime_error("enough");
    };
    EXPECT_THROW((void)prewarm(engine(root_), options_, stop_at_two), std::runtime_error);
    EXPECT_EQ(calls, 2U);
    const std::uint64_t entries = cache_stats(engine(root_)).entries;
    EXPECT_GE(entries, 2U);
    // Those that were under way are finished, no others are begun.
    EXPECT_LE(entries, 4U);
}

TEST_F(Prewarm, NothingToDoIsDone) {
    options_.problems.clear();
    const PrewarmReport nothing = prewarm(engine(root_), options_);
    EXPECT_EQ(nothing.kernels, 0U);
    EXPECT_TRUE(nothing.warnings.empty());
}

TEST_F(Prewarm, WrongArgumentsAreNamed) {
    const auto error_of = [this](const PrewarmOptions& options) -> std::string {
        try {
            (void)prewarm(engine(root_), options);
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            return error.what();
        }
        return "no error";
    };
    PrewarmOptions wrong = options_;
    wrong.tokens = {1, -5};
    EXPECT_EQ(error_of(wrong), "tokens: expected 0 or more, got -5");
    wrong = options_;
    wrong.jobs = -1;
    EXPECT_EQ(error_of(wrong), "jobs: expected 0 or more, got -1");
    wrong = options_;
    wrong.archs = {"sm_1"};
    EXPECT_NE(error_of(wrong).find("sm_1"), std::string::npos);
    wrong = options_;
    wrong.problems[0].R = 257;
    EXPECT_NE(error_of(wrong).find("257"), std::string::npos);
}

}  // namespace
}  // namespace smlora
