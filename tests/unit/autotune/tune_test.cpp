// Tuning on purpose: what is refused before anything is measured. What is measured is tested in tests/first_use.
#include <smlora/tune.hpp>

#include "tuning_fixtures.hpp"

#include <smlora/error.hpp>

#include <limits>

namespace smlora::autotune {
namespace {

class TuneProblem : public Tuning {
 protected:
    /// The message of the error that the options, and the problem of this test, are refused with.
    [[nodiscard]] std::string refusal(const std::function<void(TuneOptions&)>& change = {},
                                      ErrorCode code = ErrorCode::invalid_argument) {
        const Engine made = engine(TuningPolicy::off);
        TuneOptions options;
        if (change) change(options);
        try {
            static_cast<void>(tune(made, problem, options));
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), code);
            return error.what();
        }
        return "";
    }
};

TEST_F(TuneProblem, WrongOptionsAreNamed) {
    EXPECT_EQ(refusal([](auto& o) { o.tokens = {64, 0}; }), "tokens: expected 1 or more, got 0");
    EXPECT_EQ(refusal([](auto& o) { o.seconds = 0; }), "seconds: expected a number above 0, got 0");
    EXPECT_EQ(refusal([](auto& o) { o.seconds = std::numeric_limits<double>::quiet_NaN(); }),
              "seconds: expected a number above 0, got nan");
    EXPECT_EQ(refusal([](auto& o) { o.memory_bytes = 0; }), "memory_bytes: expected 1 or more, got 0");
    EXPECT_EQ(refusal([](auto& o) { o.candidates = 0; }), "candidates: expected 1 or more, got 0");
    EXPECT_EQ(refusal([](auto& o) { o.rounds = -1; }), "rounds: expected 1 or more, got -1");
    EXPECT_EQ(refusal([](auto& o) { o.skew = static_cast<TuneSkew>(3); }), "skew: expected 0 to 2, got 3");
    problem.E = 0;
    EXPECT_NE(refusal().find("E: expected"), std::string::npos) << refusal();
}

TEST_F(TuneProblem, TheCpuBackendHasNothingToChoose) {
    EXPECT_EQ(refusal({}, ErrorCode::unsupported),
              "engine: expected the CUDA backend, got the CPU backend, which has one kernel for each operation");
}

TEST_F(TuneProblem, OutcomesHaveNames) {
    EXPECT_EQ(name(TuneOutcome::recorded), "recorded");
    EXPECT_EQ(name(TuneOutcome::out_of_memory), "out of memory");
    EXPECT_THROW(static_cast<void>(name(static_cast<TuneOutcome>(6))), Error);
}

}  // namespace
}  // namespace smlora::autotune
