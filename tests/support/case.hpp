// Tables of cases, and tests that run on each of them.
#pragma once

#include "support/backend.hpp"
#include "workload/case.hpp"

#include <smlora/prewarm.hpp>
#include <smlora/problem.hpp>

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace smlora::test {

inline Problem shape(std::int64_t E, std::int64_t K, std::int64_t N, std::int64_t R, std::int64_t top_k,
                     DType dtype = DType::bf16) {
    Problem problem;
    problem.E = E;
    problem.K = K;
    problem.N = N;
    problem.R = R;
    problem.top_k = top_k;
    problem.dtype = dtype;
    problem.adapter_dtype = dtype;
    if (dtype == DType::fp64) problem.gate_dtype = DType::fp64;
    return problem;
}

/// The same problem with other row orders.
inline Problem with_rows(Problem problem, RowOrder x_rows, RowOrder y_rows) {
    problem.x_rows = x_rows;
    problem.y_rows = y_rows;
    return problem;
}

using Cases = std::vector<Case>;

inline const Cases& small_seed_shapes() {
    static const Cases cases{
        {.name = "tiny", .problem = shape(32, 128, 64, 4, 2), .T = 64},
        {.name = "small", .problem = shape(64, 256, 128, 8, 4), .T = 128},
    };
    return cases;
}

/// On the CPU with fewer tokens: enough that most experts have rows.
inline const Cases& real_seed_shapes() {
    static const Cases cases{
        {.name = "qwen35_gate_up", .problem = shape(256, 2048, 1024, 16, 8), .T = 2048, .T_on_cpu = 64},
        {.name = "qwen35_down", .problem = shape(256, 512, 2048, 16, 8), .T = 2048, .T_on_cpu = 64},
        {.name = "olmoe_gate_up", .problem = shape(64, 2048, 2048, 16, 8), .T = 2048, .T_on_cpu = 64},
        {.name = "qwen3_gate_up", .problem = shape(128, 2048, 1536, 16, 8), .T = 2048, .T_on_cpu = 64},
    };
    return cases;
}

/// The tables by the name of the test suite that runs them.
inline std::map<std::string, Cases>& tables() {
    static std::map<std::string, Cases> tables;
    return tables;
}
inline const Cases& add_table(const std::string& suite, const Cases& cases) { return tables()[suite] = cases; }

/// Compiles what these cases need, on all cores, so that a GPU run does not wait for one kernel after another.
inline void warm_up(const Engine& engine, const Cases& cases) {
    std::map<std::int64_t, std::vector<Problem>> by_tokens;
    for (const Case& c : cases) by_tokens[c.T].push_back(c.problem);
    for (const auto& [tokens, problems] : by_tokens) {
        prewarm(engine, {.problems = problems, .tokens = {tokens}, .archs = {}, .jobs = 0});
    }
}

/// A table of cases, each on each backend.
class OnCases : public BackendFixture, public ::testing::WithParamInterface<std::tuple<Backend, Case>> {
 protected:
    static void SetUpTestSuite() {
        if (why_not(Backend::cuda)) return;
        const ::testing::TestSuite& suite = *::testing::UnitTest::GetInstance()->current_test_suite();
        std::set<std::string> selected;
        for (int i = 0; i < suite.total_test_count(); ++i) {
            const std::string test = suite.GetTestInfo(i)->name();
            if (suite.GetTestInfo(i)->should_run()) selected.insert(test.substr(test.find('/') + 1));
        }
        Cases needed;
        for (const Case& c : tables()[suite.name()]) {
            if (selected.count("cuda_" + c.name) != 0 && c.problem.dtype != DType::fp64) needed.push_back(c);
        }
        if (needed.size() > 1) warm_up(engine_of(Backend::cuda), needed);
    }
    void SetUp() override {
        use(std::get<0>(GetParam()));
        if (backend() == Backend::cuda && test_case().problem.dtype == DType::fp64) {
            GTEST_SKIP() << "fp64 is of the CPU backend alone";
        }
    }
    [[nodiscard]] const Case& test_case() const { return std::get<1>(GetParam()); }
};

#define SMLORA_ON_CASES(Prefix, Fixture, cases)                                                                     \
    INSTANTIATE_TEST_SUITE_P(                                                                                       \
        Prefix, Fixture,                                                                                            \
        ::testing::Combine(::testing::Values(::smlora::Backend::cpu, ::smlora::Backend::cuda),                      \
                           ::testing::ValuesIn(::smlora::test::add_table(#Prefix "/" #Fixture, cases))),            \
        [](const auto& case_info) {                                                                                 \
            return ::smlora::test::name_of(std::get<0>(case_info.param)) + "_" + std::get<1>(case_info.param).name; \
        })

}  // namespace smlora::test
