// What the operations of a training step share of a budget.
#include "autotune/step_budgets.hpp"

#include <gtest/gtest.h>

namespace smlora::autotune {
namespace {

constexpr std::size_t forward = 0;
constexpr std::size_t backward_input = 1;
constexpr std::size_t backward_lora = 2;

class StepBudget : public ::testing::Test {
 protected:
    double now = 100;
    StepBudgets steps{10, [this] { return now; }};
};

TEST_F(StepBudget, IsSharedByTheOperationsThatAreStillToCome) {
    {
        const StepBudgets::Turn turn(steps, "step", forward, 3);
        EXPECT_DOUBLE_EQ(turn.whole().left(), 10);
        EXPECT_DOUBLE_EQ(turn.own().left(), 10.0 / 3);
        now += 2;
        EXPECT_DOUBLE_EQ(turn.own().left(), 10.0 / 3 - 2);
    }
    {
        const StepBudgets::Turn turn(steps, "step", backward_input, 3);
        EXPECT_DOUBLE_EQ(turn.whole().left(), 8);
        EXPECT_DOUBLE_EQ(turn.own().left(), 4) << "what forward left over is for the later ones";
        now += 5;
        EXPECT_DOUBLE_EQ(turn.own().left(), 0);
        EXPECT_DOUBLE_EQ(turn.own().spent(), 5);
    }
    {
        const StepBudgets::Turn turn(steps, "step", backward_lora, 3);
        EXPECT_DOUBLE_EQ(turn.own().left(), 3);
        now += 4;
    }
    // Another request of an operation that had its turn.
    const StepBudgets::Turn turn(steps, "step", forward, 3);
    EXPECT_DOUBLE_EQ(turn.own().total(), 0);
}

TEST_F(StepBudget, IsEachStepsOwnAndCountsOnlyDuringATurn) {
    { const StepBudgets::Turn turn(steps, "step", forward, 2); }
    now += 1000;
    const StepBudgets::Turn again(steps, "step", backward_input, 2);
    EXPECT_DOUBLE_EQ(again.own().left(), 10);
    const StepBudgets::Turn other(steps, "other", forward, 2);
    EXPECT_DOUBLE_EQ(other.own().left(), 5);
}

}  // namespace
}  // namespace smlora::autotune
