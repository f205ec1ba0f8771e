// An engine told where its cache lies uses that folder and no other, above all not the user's.
#include "operations/cases.hpp"
#include "support/runs.hpp"

#include <smlora/cache.hpp>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace smlora::test {
namespace {

/// An environment variable for as long as this lives.
class Variable {
 public:
    Variable(const char* name, const std::string& value) : name_(name) {
        if (const char* before = std::getenv(name)) before_ = before;
        ::setenv(name, value.c_str(), 1);
    }
    ~Variable() {
        if (before_) {
            ::setenv(name_, before_->c_str(), 1);
        } else {
            ::unsetenv(name_);
        }
    }
    Variable(const Variable&) = delete;
    Variable& operator=(const Variable&) = delete;

 private:
    const char* name_;
    std::optional<std::string> before_;
};

class CacheRoot : public OnEachBackend {};

TEST_P(CacheRoot, ThatIsGivenIsTheOnlyFolderWrittenTo) {
    const TemporaryFolder given, users;
    const Variable home("HOME", users.path()), xdg("XDG_CACHE_HOME", users.path() / "xdg"),
        variable("SMLORA_CACHE_DIR", users.path() / "smlora");
    const Engine own(options_of(backend(), given));
    const Projection p(own, {.problem = shape(4, 96, 80, 16, 2), .T = 20});
    run_step(p);
    EXPECT_EQ(cache_layers(own).front().root, given.path() / "cache");
    EXPECT_FALSE(std::filesystem::exists(users.path() / "smlora"));
    EXPECT_FALSE(std::filesystem::exists(users.path() / "xdg"));
    EXPECT_FALSE(std::filesystem::exists(users.path() / ".cache" / "smlora"));
    if (backend() == Backend::cuda) {
        EXPECT_GT(cache_stats(own).compiles, 0U);
        EXPECT_GT(cache_list(own).size(), 0U);
        const Engine second(options_of(backend(), given));
        run_step(Projection(second, {.problem = shape(4, 96, 80, 16, 2), .T = 20}));
        EXPECT_EQ(cache_stats(second).compiles, 0U) << "a second engine compiles what the first one stored";
    }
}

TEST_P(CacheRoot, IsTakenFromTheEnvironmentOtherwise) {
    const TemporaryFolder folder;
    const Variable variable("SMLORA_CACHE_DIR", folder.path() / "named"), home("HOME", folder.path() / "home");
    EngineOptions options;
    options.backend = backend();
    options.tuning = TuningPolicy::record_only;
    const Engine own(options);
    run_forward(Projection(own, {.problem = shape(4, 96, 80, 16, 2), .T = 20}));
    EXPECT_EQ(cache_layers(own).front().root, folder.path() / "named");
    EXPECT_FALSE(std::filesystem::exists(folder.path() / "home"));
}
SMLORA_ON_EACH_BACKEND(Small, CacheRoot);

class Prewarm : public OnGpu, public testing::WithParamInterface<Case> {};

TEST_P(Prewarm, LeavesNothingToCompileForAStep) {
    const TemporaryFolder folder;
    const Engine warm(options_of(Backend::cuda, folder));
    prewarm(warm, {.problems = {GetParam().problem}, .tokens = {GetParam().T}, .archs = {}, .jobs = 0});
    const auto compiled = cache_stats(warm).compiles;
    run_step(Projection(warm, GetParam()));
    EXPECT_EQ(cache_stats(warm).compiles, compiled);
}

Cases prewarm_cases() {
    using enum RowOrder;
    const Problem p = shape(8, 96, 80, 16, 2);
    return {
        {.name = "bf16", .problem = p, .T = 64},
        {.name = "fp32_adapter", .problem = with_adapter(p, DType::fp32), .T = 64},
        {.name = "fp32", .problem = shape(8, 96, 80, 16, 2, DType::fp32), .T = 64},
        {.name = "summed_gates_bias",
         .problem = with_bias(with_gates(with_rows(p, token, token), DType::fp32)),
         .T = 64},
        {.name = "odd", .problem = shape(8, 37, 53, 5, 2), .T = 64},
    };
}
INSTANTIATE_TEST_SUITE_P(Small, Prewarm, testing::ValuesIn(prewarm_cases()),
                         [](const auto& case_info) { return "cuda_" + case_info.param.name; });

}  // namespace
}  // namespace smlora::test
