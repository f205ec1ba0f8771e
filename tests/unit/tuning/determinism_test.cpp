// Which determinism holds, and which numbers of tokens kernels are chosen for then.
#include "tuning/determinism.hpp"

#include "support/errors.hpp"
#include "tuning/bucket.hpp"
#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace smlora::tuning {
namespace {

using smlora::testing::ScopedVariable;
using test::message_of;

TEST(Determinism, ComesFromTheOptionElseTheVariableElseIsRun) {
    {
        const ScopedVariable none("SMLORA_DETERMINISM", nullptr);
        EXPECT_EQ(determinism({}), Determinism::run);
        EXPECT_EQ(determinism(Determinism::batch), Determinism::batch);
    }
    const ScopedVariable batch("SMLORA_DETERMINISM", "batch");
    EXPECT_EQ(determinism({}), Determinism::batch);
    EXPECT_EQ(determinism(Determinism::run), Determinism::run);
}

TEST(Determinism, NamesAreReadBack) {
    for (const Determinism one : {Determinism::run, Determinism::batch}) {
        EXPECT_EQ(determinism_from_name(name(one)), one);
    }
}

TEST(Determinism, ThatIsNoneIsRefusedByName) {
    EXPECT_EQ(message_of([] { static_cast<void>(determinism(static_cast<Determinism>(2))); }),
              "determinism: expected 0 to 1, got 2");
    EXPECT_EQ(message_of([] { static_cast<void>(determinism_from_name("Batch")); }),
              "determinism: expected run or batch, got \"Batch\"");
    const ScopedVariable wrong("SMLORA_DETERMINISM", "on");
    EXPECT_EQ(message_of([] { static_cast<void>(determinism({})); }),
              "SMLORA_DETERMINISM: expected run or batch, got \"on\"");
}

TEST(Determinism, OfBatchesChoosesForOneNumberOfTokens) {
    EXPECT_EQ(choice_tokens(Determinism::run, {1, 64, 100000}), (std::vector<std::int64_t>{1, 64, 100000}));
    EXPECT_EQ(choice_tokens(Determinism::batch, {1, 64, 100000}), (std::vector<std::int64_t>{batch_tokens}));
    EXPECT_EQ(choice_tokens(Determinism::batch, {}), std::vector<std::int64_t>{}) << "no tokens, nothing to choose";
    EXPECT_EQ(tokens_of(bucket_of(batch_tokens)), batch_tokens) << "in the middle of its bucket";
}

}  // namespace
}  // namespace smlora::tuning
