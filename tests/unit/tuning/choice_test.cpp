// What is chosen: of samples, and of machines whose truth is known.
#include "tuning/choice.hpp"

#include "measuring.hpp"
#include "tuning/distance.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

namespace smlora::tuning {
namespace {

using namespace testing;

/// `rounds` samples that scatter about the median by the standard deviation `deviation`, in milliseconds.
Trial sampled(int number, double median, double deviation, int rounds) {
    Trial made;
    made.candidate = candidate(number, 1e-3 * number);
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
    std::vector<Trial> trials{sampled(0, 1, 0, 9), sampled(1, 0.975, 0.001, 9)};
    EXPECT_EQ(chosen(trials), "c01");
    for (int i = 2; i < 6; ++i) trials.push_back(sampled(i, 1.2, 0.04, 9));
    EXPECT_EQ(chosen(trials), "c00") << "others scatter by 4 %";
    EXPECT_EQ(undecided(trials), (std::vector<std::size_t>{0, 1}));
}

TEST(Choice, ARunoffIsBelievedThoughTheRoundsBeforeWereNoisy) {
    std::vector<Trial> trials{sampled(0, 1, 0, 27), sampled(1, 0.975, 0.004, 27)};
    for (int i = 2; i < 6; ++i) trials.push_back(sampled(i, 1.2, 0.06, 9));
    EXPECT_EQ(chosen(trials), "c01");
    EXPECT_TRUE(undecided(trials).empty());
    // Unless it was noisy itself.
    trials[1] = sampled(1, 0.975, 0.06, 27);
    EXPECT_EQ(chosen(trials), "c00");
}

TEST(Choice, AHeuristicChoiceAtTheBorderOfATieIsMeasuredFurther) {
    // Above the border and below it, but not by more than three standard errors.
    for (const double seconds : {0.983, 0.993}) {
        EXPECT_EQ(undecided({sampled(0, 1, 0, 9), sampled(1, seconds, 0.01, 9)}), (std::vector<std::size_t>{0, 1}));
        EXPECT_TRUE(undecided({sampled(0, 1, 0, 27), sampled(1, seconds, 0.004, 27)}).empty());
    }
    // Whoever else is there is as good.
    EXPECT_TRUE(undecided({sampled(0, 1, 0, 9), sampled(1, 0.9, 0.004, 9), sampled(2, 0.905, 0.01, 9)}).empty());
}

TEST(Choice, IsTheSameOfSamplesAndOfWhatTheyComeTo) {
    std::mt19937 random(fresh_seed());
    std::uniform_real_distribution<double> median(0.9, 1.1), deviation(0, 0.03);
    for (int turn = 0; turn < 200; ++turn) {
        std::vector<Trial> trials{sampled(0, 1, 0.002, 27)};
        for (int i = 1; i < 8; ++i)
            trials.push_back(sampled(i, median(random), deviation(random), i % 3 == 0 ? 27 : 9));
        trials[3].verdict = Verdict::refused;
        trials[5].verdict = Verdict::slow;
        std::vector<Trial> condensed = trials;
        condense(condensed);
        const std::vector<Estimate> before = estimates(trials), after = estimates(condensed);
        for (std::size_t i = 0; i < trials.size(); ++i) {
            EXPECT_TRUE(condensed[i].samples.empty());
            EXPECT_EQ(condensed[i].taken(), i == 3 ? 0 : trials[i].taken());
            EXPECT_EQ(after[i].samples, before[i].samples);
            EXPECT_TRUE(i == 3 || std::abs(after[i].seconds - before[i].seconds) < 1.1e-5 * before[i].seconds);
            EXPECT_NEAR(after[i].noise, before[i].noise, 1e-5);
        }
        EXPECT_EQ(chosen(condensed), chosen(trials));
        std::vector<Trial> again = condensed;
        condense(again);
        for (std::size_t i = 0; i < trials.size(); ++i) EXPECT_EQ(again[i].timing, condensed[i].timing);
    }
}

TEST(Choice, WhatIsTimedLaterIsComparedByTheYardstick) {
    std::vector<Trial> trials{sampled(0, 1, 0, 9), sampled(1, 0.9, 0.001, 9)};
    condense(trials);
    // Another day, on which everything takes half as long again.
    trials[0].samples = sampled(0, 1.5, 0, 9).samples;
    trials.push_back(sampled(2, 1.5 * 0.8, 0.001, 9));
    const std::vector<Estimate> times = estimates(trials);
    EXPECT_NEAR(times[0].seconds, 1e-3, 1e-9);
    EXPECT_NEAR(times[1].seconds, 0.9e-3, 1e-8);
    EXPECT_NEAR(times[2].seconds, 0.8e-3, 1e-8);
    EXPECT_EQ(chosen(trials), "c02");
    // Further samples count by their number.
    trials[1].samples = sampled(1, 1.5 * 0.93, 0, 18).samples;
    trials[0].samples = sampled(0, 1.5, 0, 18).samples;
    EXPECT_NEAR(estimates(trials)[1].seconds, (0.9e-3 + 2 * 0.93e-3) / 3, 1e-8);
    EXPECT_EQ(trials[1].taken(), 27);
    condense(trials);
    EXPECT_EQ(trials[1].timing->samples, 27);
    EXPECT_NEAR(trials[0].timing->unit_seconds, 1e-3, 1e-9) << "the first day's";
}

class Choosing : public Measuring {};

TEST_F(Choosing, TheUsualChoiceIsComparedWithTheBestOfAll) {
    const unsigned seed = fresh_seed();
    Landscape land(seed, 60);
    // The best of all is predicted to be among the worst, so that the usual choice cannot be it.
    land.space[7].predicted_seconds *= 10;
    land.planted[land.space[7].name].seconds = 0.8e-3;
    FakeDevice device(land.planted, seed);
    device.noise = 0.003;
    ASSERT_EQ(run(device, land.space), Outcome::complete);
    const std::string usual = name_of(tuning.trials, tuning.choice);
    ASSERT_NE(usual, land.space[7].name);

    Tuning all = untried();
    protocol.breadth = Breadth::all;
    FakeDevice second(land.planted, seed + 1);
    second.noise = 0.003;
    ASSERT_EQ(measure(second, land.space, protocol, threads, all, {}), Outcome::complete);
    const auto found = distance(all, tuning.choice);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(all.trials[found->chosen].candidate.name, usual);
    EXPECT_EQ(all.trials[found->best].candidate.name, land.space[7].name);
    EXPECT_NEAR(found->factor, land.planted[usual].seconds / 0.8e-3, 0.03 * found->factor);
    EXPECT_GT(found->noise, 0);
    EXPECT_LT(found->noise, 0.05);
    // The heuristic choice where nothing was chosen; nothing for what was not measured.
    EXPECT_EQ(distance(all, std::nullopt)->chosen, 0u);
    EXPECT_FALSE(distance(all, Configuration{"another", {}}).has_value());
    EXPECT_FALSE(distance(untried(), std::nullopt).has_value());
}

TEST_F(Choosing, FindsThePlantedBestWithinTheNoise) {
    for (int round = 0; round < 40; ++round) {
        const unsigned seed = fresh_seed();
        Landscape land(seed, 24);
        FakeDevice device(land.planted, seed);
        device.noise = 0.01;
        device.drift_amplitude = 0.1;
        device.spikes = 0.02;
        Tuning made = untried();
        ASSERT_EQ(measure(device, land.space, protocol, threads, made, {}), Outcome::complete) << seed;
        const std::string chosen = name_of(made.trials, made.choice);
        EXPECT_LE(land.planted[chosen].seconds, land.planted[land.fastest].seconds * 1.06)
            << chosen << " for " << land.fastest << ", seed " << seed;
    }
}

TEST_F(Choosing, TheChoiceIsStableOverSeedsOfTheNoise) {
    // 4 % between the best and the next, 0.5 % of noise: every run must see it.
    std::map<std::string, Planted> planted;
    SearchSpace space;
    for (int i = 0; i < 12; ++i) {
        space.push_back(candidate(i, 1e-3 + i * 1e-5));
        planted[space.back().name].seconds = i == 7 ? 1.0e-3 : 1.04e-3 + i * 1e-5;
    }
    for (int run_number = 0; run_number < 30; ++run_number) {
        const unsigned seed = fresh_seed();
        FakeDevice device(planted, seed);
        device.noise = 0.005;
        device.drift_amplitude = 0.05;
        Tuning made = untried();
        measure(device, space, protocol, threads, made, {});
        EXPECT_EQ(name_of(made.trials, made.choice), "c07") << "seed " << seed;
    }
}

TEST_F(Choosing, TheHeuristicChoiceStaysUnlessItIsBeatenByMoreThanTheNoise) {
    const SearchSpace space{candidate(0, 1e-3, 9000), candidate(1, 2e-3, 100), candidate(2, 3e-3, 100)};
    constexpr int runs = 200;
    int kept = 0;
    int left = 0;
    for (int run_number = 0; run_number < runs; ++run_number) {
        const unsigned seed = fresh_seed();
        FakeDevice near({{"c00", {1.004e-3}}, {"c01", {1.000e-3}}, {"c02", {1.3e-3}}}, seed);
        Tuning made = untried();
        measure(near, space, protocol, threads, made, {});
        kept += name_of(made.trials, made.choice) == "c00" ? 1 : 0;
        FakeDevice far({{"c00", {1.06e-3}}, {"c01", {1.000e-3}}, {"c02", {1.3e-3}}}, seed);
        made = untried();
        measure(far, space, protocol, threads, made, {});
        left += name_of(made.trials, made.choice) == "c01" ? 1 : 0;
    }
    EXPECT_GE(kept, runs * 90 / 100) << "0.4 % behind with 1 % of noise";
    EXPECT_GE(left, runs * 95 / 100) << "6 % behind with 1 % of noise";
}

TEST_F(Choosing, TiesFallToLessSharedMemoryAndThenToTheName) {
    // The heuristic choice is far behind; the others are equal.
    const SearchSpace space{candidate(0, 1e-4), candidate(3, 1e-3, 500), candidate(1, 2e-3, 500),
                            candidate(2, 1e-3, 900)};
    for (int run_number = 0; run_number < 10; ++run_number) {
        const unsigned seed = fresh_seed();
        FakeDevice device({{"c00", {1.5e-3}}, {"c01", {1e-3}}, {"c02", {1e-3}}, {"c03", {1e-3}}}, seed);
        device.noise = 0.001;
        Tuning made = untried();
        measure(device, space, protocol, threads, made, {});
        EXPECT_EQ(name_of(made.trials, made.choice), "c01") << "seed " << seed;
    }
}

TEST_F(Choosing, WhoeverOnlyNoiseMakesEqualIsMeasuredFurther) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 3e-3)};
    const std::map<std::string, Planted> planted{{"c00", {1.04e-3}}, {"c01", {1e-3}}, {"c02", {1.5e-3}}};
    int chosen = 0;
    int longest = 0;
    for (unsigned seed = 1; seed <= 20; ++seed) {
        FakeDevice device(planted, seed);
        device.noise = 0.025;
        tuning = untried();
        EXPECT_EQ(run(device, space), Outcome::complete);
        const auto timings = [&](const char* name) {
            return static_cast<int>(std::count(device.timed.begin(), device.timed.end(), name));
        };
        EXPECT_EQ(timings("c02"), protocol.rounds) << "far behind";
        EXPECT_EQ(timings("c00"), timings("c01"));
        EXPECT_EQ(timings("c01") % protocol.rounds, 0);
        longest = std::max(longest, timings("c01"));
        chosen += name_of(tuning.trials, tuning.choice) == "c01" ? 1 : 0;
    }
    EXPECT_EQ(longest, (1 + protocol.runoffs) * protocol.rounds);
    EXPECT_GE(chosen, 16) << "of 20; by the first rounds alone 6";

    // Equals stay equals.
    FakeDevice equal({{"c00", {1e-3}}, {"c01", {1.002e-3}}, {"c02", {1.5e-3}}}, 1);
    equal.noise = 0.001;
    tuning = untried();
    run(equal, space);
    EXPECT_EQ(equal.timed.size(), 3u * static_cast<unsigned>(protocol.rounds));

    // Nor is time spent that there is not: the choice is made of what was measured, and the rest is left for later.
    protocol.seconds = 0.6;
    FakeDevice brief(planted, 1);
    brief.noise = 0.025;
    brief.launches_a_sample = 8;
    tuning = untried();
    EXPECT_EQ(run(brief, space), Outcome::out_of_time);
    EXPECT_LT(brief.timed.size(), 5u * static_cast<unsigned>(protocol.rounds));
    EXPECT_TRUE(tuning.choice.has_value());
}

}  // namespace
}  // namespace smlora::tuning
