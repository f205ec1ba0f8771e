// The checks beside those of tensors.
#include "unit/check/validate_calls.hpp"

namespace smlora::check::test {
namespace {

TEST(ValidateTokens, TakesWhatCanBeRouted) {
    Problem problem = sound_problem();
    problem.index_dtype = DType::int32;
    EXPECT_NO_THROW(validate_tokens(problem, 0));
    EXPECT_NO_THROW(validate_tokens(problem, (std::int64_t{1} << 30) - 1));
    EXPECT_THROW(validate_tokens(problem, std::int64_t{1} << 30), Error);
    EXPECT_THROW(validate_tokens(problem, -1), Error);
    problem.index_dtype = DType::int64;
    EXPECT_NO_THROW(validate_tokens(problem, std::int64_t{1} << 40));
    problem.E = 0;
    EXPECT_THROW(validate_tokens(problem, 1), Error);
}

TEST(CheckWorkspace, AsksForSizeAndAlignment) {
    alignas(256) char memory[256];
    auto complaint = [](const Workspace& workspace, std::size_t needed) -> std::string {
        try {
            check_workspace(workspace, needed);
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            return error.what();
        }
        return "";
    };
    EXPECT_EQ(complaint({}, 1000), "");
    EXPECT_EQ(complaint({memory, 256}, 256), "");
    EXPECT_EQ(complaint({memory, 0}, 0), "");
    EXPECT_EQ(complaint({memory, 255}, 256), "workspace: expected at least 256 bytes, got 255");
    EXPECT_EQ(complaint({nullptr, 256}, 256), "workspace: expected memory for its 256 bytes, got a null pointer");
    EXPECT_EQ(complaint({memory + 16, 100}, 10).rfind("workspace: expected 256-byte-aligned memory, got 0x", 0), 0U);
}

}  // namespace
}  // namespace smlora::check::test
