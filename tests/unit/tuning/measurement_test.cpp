// The measurement protocol on machines whose truth is known.
#include "tuning/measurement.hpp"

#include "measuring.hpp"
#include "tuning/budget.hpp"
#include "tuning/choice.hpp"
#include "tuning/compiling.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

namespace smlora::tuning {
namespace {

using namespace testing;

TEST_F(Measuring, WhoIsPredictedToTakeMoreThanTwiceTheBestIsNotTried) {
    SearchSpace space{candidate(0, 0), candidate(1, 0), candidate(2, 0)};
    space[1].predicted_seconds = 2 * space[0].predicted_seconds;
    space[2].predicted_seconds = 2.01 * space[0].predicted_seconds;
    FakeDevice device({{"c00", {1e-3}}, {"c01", {1e-3}}, {"c02", {1e-4}}}, fresh_seed());
    EXPECT_EQ(run(device, space), Outcome::complete);
    EXPECT_EQ(device.prepared.size(), 2u);
    EXPECT_EQ(tuning.trials.size(), 2u);
}

TEST_F(Measuring, ALongCompileTakesNoTimeFromTheMeasuring) {
    protocol.seconds = 10;
    const SearchSpace space{candidate(0, 1), candidate(1, 2)};
    Planted slow_to_compile{1e-4};
    slow_to_compile.compile_seconds = 30;
    FakeDevice device({{"c00", {1e-3}}, {"c01", slow_to_compile}}, fresh_seed());
    device.parts_of_each = 1;
    EXPECT_EQ(run(device, space), Outcome::complete);
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c01");
    EXPECT_LT(device.now(), 10 + 30);
}

TEST_F(Measuring, TimeCountsFromTheCallCompilingIncluded) {
    const SearchSpace space{candidate(0, 1), candidate(1, 2), candidate(2, 3)};
    std::map<std::string, Planted> planted{{"c00", {1e-3, 6}}, {"c01", {1e-4, 6}}, {"c02", {1e-3, 6}}};
    FakeDevice device(planted, fresh_seed());
    device.reference_seconds = 1;
    EXPECT_EQ(run(device, space), Outcome::out_of_time);
    // The heuristic choice's two kernels take 3 s each, and nothing else would end within 6 s.
    EXPECT_NEAR(device.now(), 6, 1e-6) << "nothing is timed before there is something to compare";
    EXPECT_EQ(device.compiled.size(), 2u);
    EXPECT_TRUE(device.timed.empty());
    EXPECT_FALSE(tuning.choice.has_value());
    EXPECT_NEAR(tuning.seconds, 6, 1e-6);
    // The next call has the reference and c01 left, as far as it gets.
    FakeDevice second(planted, fresh_seed());
    second.compiled = device.compiled;
    second.reference_seconds = 1;
    EXPECT_EQ(run(second, space), Outcome::out_of_time);
    EXPECT_EQ(second.references, 2) << "compiled with the candidates";
    EXPECT_LE(second.now(), 10 + second.longest_compile);
}

TEST_F(Measuring, AShortBudgetIsPassedByOneCompileAtMostAndComesToTheEndAllTheSame) {
    protocol.seconds = 0.1;
    SearchSpace space;
    std::map<std::string, Planted> planted;
    for (int i = 0; i < 6; ++i) {
        space.push_back(candidate(i, 0.1 * i));
        planted[space.back().name] = {1e-3 - i * 1e-4, 3};
    }
    std::set<std::pair<std::string, std::size_t>> compiled;
    int calls = 0;
    for (Outcome outcome = Outcome::out_of_time; outcome != Outcome::complete; ++calls) {
        ASSERT_LT(calls, 40);
        FakeDevice device(planted, fresh_seed());
        device.compiled = compiled;
        device.reference_seconds = 0.5;
        outcome = run(device, space);
        EXPECT_LE(device.now(), 0.1 + device.longest_compile) << "call " << calls;
        EXPECT_LE(device.compiled.size(), compiled.size() + 1);
        compiled = device.compiled;
    }
    EXPECT_GT(calls, 12) << "a kernel a call";
    EXPECT_EQ(trial("c01").compile_seconds, 3) << "of both its kernels, by two calls";
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c05");
}

TEST_F(Measuring, OnSeveralThreadsTheTimeIsPassedByOneCompileAtMost) {
    std::vector<Candidate> candidates;
    std::map<std::string, Planted> planted;
    for (int i = 0; i < 24; ++i) {
        candidates.push_back(candidate(i, 0.01 * i));
        planted[candidates.back().name] = {1e-3, 0.06};
    }
    class RealTime : public FakeDevice {
     public:
        using FakeDevice::FakeDevice;
        double now() override { return clock_(); }
        Preparation prepare(const Candidate& candidate, std::size_t part) override {
            const Preparation made = FakeDevice::prepare(candidate, part);
            std::this_thread::sleep_for(std::chrono::duration<double>(made.compile_seconds));
            ++ended;
            return made;
        }
        std::atomic<int> ended = 0;

     private:
        Clock clock_ = steady_clock();
    };
    RealTime device(planted, fresh_seed());
    util::ThreadPool many(4);
    const CompiledCandidates made =
        compile_candidates(device, candidates, 0.1, many, [](std::size_t, const Compilation&) {});
    EXPECT_GE(device.ended, 1);
    EXPECT_LE(device.ended, 3 * 4) << "a thread's fourth would be begun after 90 ms, and take 30";
    EXPECT_FALSE(made.candidates[23].is_ready());
}

TEST_F(Measuring, NoCompileIsBegunThatWouldEndTooLate) {
    protocol.seconds = 10;
    SearchSpace space;
    std::map<std::string, Planted> planted;
    for (int i = 0; i < 6; ++i) {
        space.push_back(candidate(i, 0.1 * i));
        planted[space.back().name] = {1e-3, 4};
    }
    FakeDevice device(planted, fresh_seed());
    device.parts_of_each = 1;
    run(device, space);
    EXPECT_EQ(device.prepared.size(), 1u) << "the next would have ended after 8 s, and 6 are for compiling";
    device.parts_of_each = 2;
    tuning = untried();
    FakeDevice halves(planted, fresh_seed());
    run(halves, space);
    EXPECT_EQ(halves.parts_prepared, 3) << "of 2 s each";
}

TEST_F(Measuring, CheckingLeavesTimeForTimingAndNothingIsRefusedForBeingCheckedOften) {
    SearchSpace space;
    std::map<std::string, Planted> planted;
    for (int i = 0; i < 8; ++i) {
        space.push_back(candidate(i, 0.1 * i));
        planted[space.back().name] = {1e-3, 0.001, 1.5};
    }
    for (const double seconds : {1.0, 14.0}) {
        protocol.seconds = seconds;
        tuning = untried();
        int calls = 0;
        for (Outcome outcome = Outcome::out_of_time; outcome != Outcome::complete; ++calls) {
            ASSERT_LT(calls, 40);
            FakeDevice device(planted, fresh_seed());
            outcome = run(device, space);
            EXPECT_FALSE(device.timed.empty());
            if (calls > 0) continue;
            EXPECT_GE(device.verified.size(), seconds == 14.0 ? 5u : 3u);
        }
        for (const Trial& one : tuning.trials) EXPECT_EQ(one.verdict, Verdict::measured) << one.why;
    }
}

TEST_F(Measuring, AllAreMeasuredToTheEndWhenAllAreWanted) {
    const unsigned seed = fresh_seed();
    Landscape land(seed, 60);
    // Predicted to be hopeless and slow, and the best of all.
    land.space[7].predicted_seconds *= 10;
    land.planted[land.space[7].name].seconds = 0.5e-3;
    for (auto& [name, plan] : land.planted) plan.compile_seconds = 1;
    protocol.breadth = Breadth::all;
    protocol.seconds = 0.1;
    FakeDevice device(land.planted, seed);
    EXPECT_FALSE(covers(tuning, land.space, protocol));
    EXPECT_EQ(run(device, land.space), Outcome::complete);
    EXPECT_TRUE(covers(tuning, land.space, protocol));
    EXPECT_EQ(tuning.trials.size(), 60u);
    for (const Trial& one : tuning.trials) {
        EXPECT_EQ(one.verdict, Verdict::measured);
        EXPECT_EQ(one.taken(), protocol.rounds);
    }
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), land.space[7].name);
}

TEST_F(Measuring, WrongAndSpillingAndUncompilableCandidatesNeverWin) {
    SearchSpace space;
    for (int i = 0; i < 5; ++i) space.push_back(candidate(i, 1e-3 * (i + 1)));
    space.push_back(candidate(5, 1e-4));
    space.back().refusal = "needs 300 KiB of shared memory, the device has 227";
    Planted wrong{1e-4}, spilling{1e-4}, uncompilable{1e-4};
    wrong.wrong = true;
    spilling.spill_bytes = 8;
    uncompilable.compile_error = "error: no such thing";
    FakeDevice device({{"c00", {2e-3}}, {"c01", wrong}, {"c02", spilling}, {"c03", uncompilable}, {"c04", {1e-3}}},
                      fresh_seed());
    EXPECT_EQ(run(device, space), Outcome::complete);
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c04");
    EXPECT_EQ(trial("c01").why, "row 3: expected 1, got 2");
    EXPECT_EQ(trial("c02").why, "spills 8 bytes of registers");
    EXPECT_EQ(trial("c03").why, "error: no such thing");
    for (const char* name : {"c01", "c02", "c03"}) {
        EXPECT_EQ(trial(name).verdict, Verdict::refused);
        EXPECT_EQ(std::count(device.timed.begin(), device.timed.end(), name), 0) << name;
    }
    // Refused before they were run at all.
    EXPECT_EQ(std::count(device.verified.begin(), device.verified.end(), "c02"), 0);
    EXPECT_EQ(std::count(device.prepared.begin(), device.prepared.end(), "c05"), 0) << "illegal";
}

TEST_F(Measuring, AWrongHeuristicChoiceIsDisplacedAndOneThatSpillsIsMeasured) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 3e-3)};
    Planted wrong{1e-4};
    wrong.wrong = true;
    FakeDevice device({{"c00", wrong}, {"c01", {2e-3}}, {"c02", {1e-3}}}, fresh_seed());
    EXPECT_EQ(run(device, space), Outcome::complete);
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c02");

    Planted spilling{1e-3};
    spilling.spill_bytes = 64;
    FakeDevice second({{"c00", spilling}, {"c01", {2e-3}}, {"c02", {2e-3}}}, fresh_seed());
    tuning = untried();
    EXPECT_EQ(run(second, space), Outcome::complete);
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c00");
}

TEST_F(Measuring, WithoutACandidateThatIsRightThereIsNoChoice) {
    Planted wrong{1e-4};
    wrong.wrong = true;
    FakeDevice device({{"c00", wrong}, {"c01", wrong}}, fresh_seed());
    EXPECT_EQ(run(device, {candidate(0, 1), candidate(1, 2)}), Outcome::complete);
    EXPECT_FALSE(tuning.choice.has_value());
    EXPECT_TRUE(device.timed.empty());
}

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

TEST_F(Measuring, TheMemoryBudgetIsKept) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3)};
    const std::map<std::string, Planted> planted{{"c00", {1e-3}}, {"c01", {1.1e-3}}};
    for (const std::uint64_t budget : {std::uint64_t{29}, std::uint64_t{55}, std::uint64_t{1000}}) {
        FakeDevice device(planted, fresh_seed());
        device.memory = {10, 20, 50, 8000};
        protocol.memory_bytes = budget;
        tuning = untried();
        const Outcome outcome = run(device, space);
        if (budget < 30) {
            EXPECT_EQ(outcome, Outcome::out_of_memory);
            EXPECT_TRUE(device.prepared.empty() && device.timed.empty());
        } else {
            EXPECT_EQ(outcome, Outcome::complete);
            EXPECT_LE(10 + 20 * static_cast<std::uint64_t>(device.sets), budget);
        }
    }
    // Unset: an eighth of what is free.
    protocol.memory_bytes.reset();
    FakeDevice device(planted, fresh_seed());
    device.memory = {10, 20, 50, 8 * 55};
    tuning = untried();
    EXPECT_EQ(run(device, space), Outcome::complete);
    EXPECT_EQ(device.sets, 2);
}

TEST_F(Measuring, TheTimeBudgetIsKeptAndWhatWasMeasuredIsGoneOnFrom) {
    const unsigned seed = fresh_seed();
    Landscape land(seed, 24);
    for (auto& [name, plan] : land.planted) plan.compile_seconds = 0.2;
    protocol.runoffs = 0;
    FakeDevice whole(land.planted, seed);
    protocol.seconds = 1000;
    Tuning uncut = untried();
    ASSERT_EQ(measure(whole, land.space, protocol, threads, uncut, {}), Outcome::complete);

    protocol.seconds = 1.0;
    int calls = 0;
    Outcome outcome = Outcome::out_of_time;
    std::map<std::string, int> timings;
    std::set<std::pair<std::string, std::size_t>> compiled;
    double earlier = 0;
    while (outcome != Outcome::complete && calls < 30) {
        FakeDevice device(land.planted, seed + static_cast<unsigned>(++calls));
        device.compiled = compiled;
        outcome = run(device, land.space);
        compiled = device.compiled;
        EXPECT_LE(device.now(), 1.0 + device.longest_compile) << "call " << calls;
        EXPECT_NEAR(tuning.seconds - earlier, device.now(), 1e-6);
        EXPECT_TRUE(tuning.choice.has_value());
        earlier = tuning.seconds;
        for (const std::string& name : device.timed) ++timings[name];
    }
    EXPECT_EQ(outcome, Outcome::complete);
    EXPECT_GT(calls, 3);
    const std::string heuristic = tuning.trials.front().candidate.name;
    for (const auto& [name, count] : timings) {
        // But for the yardstick, and the second sample of one that seems slow, nothing is measured twice.
        EXPECT_TRUE(name == heuristic || count <= protocol.rounds + 1) << name << " " << count;
    }
    EXPECT_LE(land.planted[name_of(tuning.trials, tuning.choice)].seconds,
              land.planted[name_of(uncut.trials, uncut.choice)].seconds * 1.06)
        << "seed " << seed;
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

TEST_F(Measuring, ACompleteTuningIsNotMeasuredAgain) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3)};
    FakeDevice device({{"c00", {1e-3}}, {"c01", {1.1e-3}}}, fresh_seed());
    run(device, space);
    EXPECT_TRUE(covers(tuning, space, protocol));
    // A candidate that came later makes it incomplete, and only that one is measured, beside the yardstick.
    SearchSpace more = space;
    more.push_back(candidate(2, 1.5e-3));
    EXPECT_FALSE(covers(tuning, more, protocol));
    FakeDevice second({{"c00", {1e-3}}, {"c01", {1.1e-3}}, {"c02", {0.8e-3}}}, fresh_seed());
    EXPECT_EQ(run(second, more), Outcome::complete);
    EXPECT_EQ(std::count(second.timed.begin(), second.timed.end(), "c01"), 0);
    EXPECT_EQ(std::count(second.timed.begin(), second.timed.end(), "c02"), protocol.rounds);
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c02");
}

TEST_F(Measuring, SamplesBesideAnotherYardstickAreForgotten) {
    FakeDevice device({{"c00", {1e-3}}, {"c01", {1.1e-3}}}, fresh_seed());
    run(device, {candidate(0, 1e-3), candidate(1, 2e-3)});
    FakeDevice second({{"c00", {1e-3}}, {"c01", {1.1e-3}}, {"c02", {3e-3}}}, fresh_seed());
    EXPECT_EQ(run(second, {candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 0.5e-3)}), Outcome::complete);
    EXPECT_EQ(std::count(second.timed.begin(), second.timed.end(), "c01"), protocol.rounds);
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c00");
}

TEST_F(Measuring, OneCandidateCannotUseUpTheTimeOfTheOthers) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 3e-3)};
    Planted hangs{1e-3};
    hangs.check_seconds = 5;
    FakeDevice device({{"c00", {1e-3}}, {"c01", hangs}, {"c02", {0.7e-3}}}, fresh_seed());
    EXPECT_EQ(run(device, space), Outcome::complete);
    EXPECT_EQ(trial("c01").verdict, Verdict::refused);
    EXPECT_NE(trial("c01").why.find("took 5.00 s"), std::string::npos) << trial("c01").why;
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c02");

    // One whose samples are long gets fewer of them.
    protocol.seconds = 1000;
    FakeDevice slow({{"c00", {0.2}}, {"c01", {0.25}}, {"c02", {0.2}}}, fresh_seed());
    tuning = untried();
    EXPECT_EQ(run(slow, space), Outcome::complete);
    EXPECT_LT(std::count(slow.timed.begin(), slow.timed.end(), "c01"), protocol.rounds);
}

TEST_F(Measuring, OnlyTheBestPredictionsAreTried) {
    const unsigned seed = fresh_seed();
    Landscape land(seed, 60);
    FakeDevice device(land.planted, seed);
    run(device, land.space);
    EXPECT_EQ(device.prepared.size(), protocol.candidates);
    double worst = 0;
    for (const Trial& one : tuning.trials) worst = std::max(worst, one.candidate.predicted_seconds);
    for (const Candidate& one : land.space) {
        const bool tried = std::find(device.prepared.begin(), device.prepared.end(), one.name) != device.prepared.end();
        EXPECT_EQ(tried, one.predicted_seconds <= worst);
    }
}

TEST_F(Measuring, EachTuningChecksOnInputsOfItsOwn) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3)};
    protocol.seed = 4711;
    FakeDevice device({{"c00", {1e-3}}, {"c01", {1.1e-3}}}, fresh_seed());
    run(device, space);
    EXPECT_EQ(device.seeds, std::vector<std::uint64_t>{4711});
    EXPECT_EQ(tuning.seed, 4711u);
}

TEST_F(Measuring, ProgressTellsTheBestSoFar) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3)};
    FakeDevice device({{"c00", {1e-3}}, {"c01", {0.5e-3}}}, fresh_seed());
    std::vector<std::string> phases;
    std::string best;
    run(device, space,
        {[&](const Progress& progress) {
             if (phases.empty() || phases.back() != progress.phase) phases.emplace_back(progress.phase);
             best = progress.best;
         },
         {}});
    EXPECT_EQ(phases, (std::vector<std::string>{"compiling", "checking", "timing"}));
    EXPECT_EQ(best, "c01");
}

/// Its first compile ends only when another is under way.
class PatientDevice : public FakeDevice {
 public:
    using FakeDevice::FakeDevice;
    Preparation prepare(const Candidate& candidate, std::size_t part) override {
        {
            std::unique_lock lock(mutex_);
            ++compiling_;
            another_.notify_all();
            met = another_.wait_for(lock, std::chrono::seconds(30), [&] { return met || compiling_ > 1; });
            --compiling_;
        }
        return FakeDevice::prepare(candidate, part);
    }

    bool met = false;

 private:
    std::mutex mutex_;
    std::condition_variable another_;
    int compiling_ = 0;
};

TEST_F(Measuring, CandidatesAreCompiledOnSeveralThreads) {
    const unsigned seed = fresh_seed();
    Landscape land(seed, 24);
    PatientDevice device(land.planted, seed);
    util::ThreadPool many(4);
    EXPECT_EQ(measure(device, land.space, protocol, many, tuning, {}), Outcome::complete);
    EXPECT_TRUE(device.met);
    EXPECT_EQ(std::set<std::string>(device.prepared.begin(), device.prepared.end()).size(), 24u);
}

TEST_F(Measuring, ThereIsNoChoiceBeforeAnythingWasTimed) {
    Landscape land(fresh_seed(), 10);
    FakeDevice device(land.planted, fresh_seed());
    bool timed = false;
    int before = 0;
    const Observer observer{{}, [&](const Tuning& state) {
                                timed = timed || !device.timed.empty();
                                if (timed) return;
                                ++before;
                                EXPECT_FALSE(state.choice);
                                EXPECT_EQ(judge(state.trials).reason, "nothing was timed yet");
                            }};
    EXPECT_EQ(run(device, land.space, observer), Outcome::complete);
    EXPECT_GT(before, 3);
    EXPECT_TRUE(tuning.choice);
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
