// Which samples are believed.
#include "tune/choice.hpp"

#include "fake_device.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace smlora::tune {
namespace {

/// `rounds` samples that scatter about the median by the standard deviation `deviation`, in milliseconds.
Trial trial(int number, double median, double deviation, int rounds) {
    Trial made;
    made.candidate = testing::candidate(number, 1e-3 * number);
    made.verdict = Verdict::measured;
    for (int round = 0; round < rounds; ++round) {
        const double shift = round % 3 - 1;  // two of three are off, and the median is where it should be
        made.samples.push_back(1e-3 * (median + shift * deviation / 1.4826));
    }
    return made;
}

std::string chosen(const std::vector<Trial>& trials) {
    const Judgement judgement = judge(trials);
    return judgement.winner ? trials[*judgement.winner].candidate.name : "none";
}

TEST(Choice, AFewSamplesThatAgreeByChanceAreNotBelieved) {
    std::vector<Trial> trials{trial(0, 1, 0, 9), trial(1, 0.975, 0.001, 9)};
    EXPECT_EQ(chosen(trials), "c01");
    for (int i = 2; i < 6; ++i) trials.push_back(trial(i, 1.2, 0.04, 9));
    EXPECT_EQ(chosen(trials), "c00") << "others scatter by 4 %";
    EXPECT_EQ(undecided(trials), (std::vector<std::size_t>{0, 1}));
}

TEST(Choice, ARunoffIsBelievedThoughTheRoundsBeforeWereNoisy) {
    std::vector<Trial> trials{trial(0, 1, 0, 27), trial(1, 0.975, 0.004, 27)};
    for (int i = 2; i < 6; ++i) trials.push_back(trial(i, 1.2, 0.06, 9));
    EXPECT_EQ(chosen(trials), "c01");
    EXPECT_TRUE(undecided(trials).empty());
    // Unless it was noisy itself.
    trials[1] = trial(1, 0.975, 0.06, 27);
    EXPECT_EQ(chosen(trials), "c00");
}

}  // namespace
}  // namespace smlora::tune
