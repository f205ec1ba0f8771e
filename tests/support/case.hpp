// One case of a table of tests: a problem, how many tokens, how they are routed and how the tensors lie in memory.
#pragma once

#include "support/backend.hpp"
#include "support/routing.hpp"

#include <smlora/prewarm.hpp>
#include <smlora/problem.hpp>

#include <map>
#include <ostream>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace smlora::test {

/// How A [E, R, K] and B [E, N, R] are stored; r and e name rank and expert.
enum class AdapterLayout {
    seed,             ///< A [E*R, K], row e*R + r; B [N, E*R], column e*R + r
    contiguous,       ///< A [E, R, K]; B [E, N, R]
    peft,             ///< A as in seed; B [N, R*E], column r*E + e
    transposed,       ///< A [K, E*R]; B [E*R, N]
    peft_transposed,  ///< A [K, E*R]; B [R*E, N], row r*E + e
    gapped,           ///< contiguous with unused elements after each row
};

struct Case {
    std::string name = {};
    Problem problem = {};
    std::int64_t T = 0;
    std::int64_t T_on_cpu = -1;  ///< -1: T
    Choice choice = Choice::distinct;
    double left_out = 0;  ///< share of entries that are -1
    AdapterLayout adapter = AdapterLayout::seed;
    std::int64_t row_gap = 0;     ///< unused elements after each row of x, y, dx and dy
    std::int64_t shift = 0;       ///< elements by which the tensors start off a 256-byte boundary
    std::int64_t expert_gap = 0;  ///< unused elements after each matrix of W
    float scaling = 2.0F;
    bool weight = true;  ///< false: there is no W; the case is for backward_lora, which does not read it

    [[nodiscard]] std::int64_t tokens(Backend backend) const {
        return backend == Backend::cpu && T_on_cpu >= 0 ? T_on_cpu : T;
    }
    friend std::ostream& operator<<(std::ostream& out, const Case& c) {
        return out << to_string(c.problem) << " T" << c.T;
    }
};

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
class OnCases : public BackendFixture, public testing::WithParamInterface<std::tuple<Backend, Case>> {
 protected:
    static void SetUpTestSuite() {
        if (why_not(Backend::cuda)) return;
        const testing::TestSuite& suite = *testing::UnitTest::GetInstance()->current_test_suite();
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
