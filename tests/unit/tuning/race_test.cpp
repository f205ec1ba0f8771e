// Which candidates are timed in which rounds, on machines whose truth is known.
#include "measuring.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>

namespace smlora::tuning {
namespace {

using namespace testing;

TEST_F(Measuring, WhoIsTwiceAsSlowAsTheBestIsDroppedAfterItsFirstRound) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 3e-3)};
    FakeDevice device({{"c00", {1e-3}}, {"c01", {5e-3}}, {"c02", {1.5e-3}}}, fresh_seed());
    run(device, space);
    EXPECT_EQ(trial("c01").verdict, Verdict::slow);
    EXPECT_EQ(std::count(device.timed.begin(), device.timed.end(), "c01"), 2) << "once, and once more to be sure";
    EXPECT_EQ(std::count(device.timed.begin(), device.timed.end(), "c02"), protocol.rounds);
    // The heuristic choice is what the others are compared with: it stays however slow it is.
    FakeDevice second({{"c00", {9e-3}}, {"c01", {1e-3}}, {"c02", {1.5e-3}}}, fresh_seed());
    tuning = untried();
    run(second, space);
    EXPECT_EQ(std::count(second.timed.begin(), second.timed.end(), "c00"), protocol.rounds);
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c01");
}

TEST_F(Measuring, RoundsInterleaveCandidatesAndRotateWhoIsFirst) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 3e-3)};
    FakeDevice device({{"c00", {1e-3}}, {"c01", {1.2e-3}}, {"c02", {1.4e-3}}}, fresh_seed());
    run(device, space);
    ASSERT_EQ(device.timed.size(), 3u * static_cast<unsigned>(protocol.rounds));
    std::set<std::string> first;
    for (std::size_t round = 0; round < device.timed.size(); round += 3) {
        const std::set<std::string> names(device.timed.begin() + static_cast<std::ptrdiff_t>(round),
                                          device.timed.begin() + static_cast<std::ptrdiff_t>(round) + 3);
        EXPECT_EQ(names.size(), 3u) << "round " << round / 3;
        first.insert(device.timed[round]);
    }
    EXPECT_EQ(first.size(), 3u);
}

TEST_F(Measuring, CandidatesOfARoundMeetTheSameRows) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 3e-3), candidate(3, 4e-3)};
    // Of c03 the first round wants to see a second sample; c01 is in a runoff with c00.
    FakeDevice device({{"c00", {1e-3}}, {"c01", {1.01e-3}}, {"c02", {1.5e-3}}, {"c03", {4e-3}}}, fresh_seed());
    device.noise = 0.03;
    run(device, space);
    std::map<std::string, std::vector<std::size_t>> rounds;
    for (std::size_t i = 0; i < device.timed.size(); ++i) rounds[device.timed[i]].push_back(device.rounds[i]);
    EXPECT_EQ(rounds["c03"], (std::vector<std::size_t>{0, 0}));
    EXPECT_EQ(rounds["c02"], (std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6, 7, 8}));
    for (std::size_t round = 0; round < rounds["c00"].size(); ++round) EXPECT_EQ(rounds["c00"][round], round);
    EXPECT_EQ(rounds["c01"], rounds["c00"]);
}

TEST_F(Measuring, InputsRotateThroughMoreThanThreeCaches) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3)};
    const std::map<std::string, Planted> planted{{"c00", {1e-3}}, {"c01", {1.1e-3}}};
    FakeDevice device(planted, fresh_seed());
    device.memory = {1000, std::uint64_t{20} << 20, std::uint64_t{50} << 20, std::uint64_t{80} << 30};
    run(device, space);
    EXPECT_GT(static_cast<std::uint64_t>(device.sets) * device.memory.set_bytes, 3 * device.memory.l2_bytes);
    EXPECT_EQ(device.sets_used.size(), static_cast<std::size_t>(device.sets));

    FakeDevice small(planted, fresh_seed());
    small.memory.set_bytes = std::uint64_t{700} << 10;
    tuning = untried();
    run(small, space);
    EXPECT_GT(static_cast<std::uint64_t>(small.sets) * small.memory.set_bytes, 3 * small.memory.l2_bytes);

    FakeDevice large(planted, fresh_seed());
    large.memory.set_bytes = std::uint64_t{1} << 30;
    tuning = untried();
    run(large, space);
    EXPECT_EQ(large.sets, 1) << "one set is larger than the caches";
}

TEST_F(Measuring, ARunoffThatIsCutShortIsGoneOnWith) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 3e-3)};
    // All of them compiled already.
    const std::map<std::string, Planted> planted{{"c00", {1.2e-3, 0}}, {"c01", {1e-3, 0}}, {"c02", {1.02e-3, 0}}};
    const int rounds_of_all = (1 + protocol.runoffs) * protocol.rounds;
    const auto tune_for = [&](double seconds, FakeDevice& device) {
        device.noise = 0.05;
        protocol.seconds = seconds;
        return run(device, space);
    };
    const auto timings = [](const FakeDevice& device) {
        return static_cast<int>(std::count(device.timed.begin(), device.timed.end(), "c01"));
    };
    int undecided_to_the_end = 0;
    int gone_on_with = 0;
    for (unsigned noise_seed = 1; noise_seed <= 20; ++noise_seed) {
        FakeDevice whole(planted, noise_seed);
        tuning = untried();
        ASSERT_EQ(tune_for(10, whole), Outcome::complete);
        if (timings(whole) != rounds_of_all) continue;
        ++undecided_to_the_end;

        // Time for the first rounds, and for a part of a runoff.
        FakeDevice first(planted, noise_seed);
        tuning = untried();
        protocol.seed = 4711;
        ASSERT_EQ(tune_for(0.15, first), Outcome::out_of_time);
        EXPECT_FALSE(tuning.complete);
        EXPECT_TRUE(tuning.choice.has_value());
        ASSERT_GT(timings(first), protocol.rounds);
        ASSERT_LT(timings(first), 2 * protocol.rounds);

        FakeDevice second(planted, noise_seed + 100);
        protocol.seed = 4712;
        EXPECT_EQ(tune_for(10, second), Outcome::complete);
        EXPECT_TRUE(tuning.complete);
        gone_on_with += timings(second) > 0 ? 1 : 0;
        EXPECT_LE(timings(first) + timings(second), rounds_of_all + protocol.rounds);
        EXPECT_EQ(second.seeds, std::vector<std::uint64_t>{4711}) << "checked on the inputs of the first";
        EXPECT_EQ(tuning.seed, 4711u);

        FakeDevice third(planted, noise_seed);
        EXPECT_EQ(tune_for(10, third), Outcome::complete);
        EXPECT_EQ(timings(third), 0);
    }
    EXPECT_GT(undecided_to_the_end, 0);
    EXPECT_GT(gone_on_with, undecided_to_the_end / 2) << "what a part of a runoff decides needs no more";
}

TEST_F(Measuring, SamplesBesideAnotherYardstickAreForgotten) {
    FakeDevice device({{"c00", {1e-3}}, {"c01", {1.1e-3}}}, fresh_seed());
    run(device, {candidate(0, 1e-3), candidate(1, 2e-3)});
    FakeDevice second({{"c00", {1e-3}}, {"c01", {1.1e-3}}, {"c02", {3e-3}}}, fresh_seed());
    EXPECT_EQ(run(second, {candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 0.5e-3)}), Outcome::complete);
    EXPECT_EQ(std::count(second.timed.begin(), second.timed.end(), "c01"), protocol.rounds);
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c00");
}

TEST_F(Measuring, WhoIsTheYardstickTakesPartAlthoughItWasSlow) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 3e-3), candidate(3, 4e-3)};
    std::map<std::string, Planted> planted{{"c00", {0.2e-3}}, {"c01", {1.5e-3}}, {"c02", {0.9e-3}}, {"c03", {0.5e-3}}};
    FakeDevice device(planted, fresh_seed());
    device.noise = 0;
    run(device, {space[0], space[1], space[2]});
    EXPECT_EQ(trial("c01").verdict, Verdict::slow);
    // Another compiler refuses the heuristic choice.
    tuning.trials[0].verdict = Verdict::pending;
    planted.at("c00").compile_error = "no longer";
    FakeDevice next(planted, fresh_seed());
    next.noise = 0;
    EXPECT_EQ(run(next, space), Outcome::complete);
    EXPECT_EQ(trial("c00").verdict, Verdict::refused);
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c03");
}

}  // namespace
}  // namespace smlora::tuning
