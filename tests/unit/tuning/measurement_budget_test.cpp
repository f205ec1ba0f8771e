// Time and memory that a measurement may use, on machines whose truth is known.
#include "measuring.hpp"
#include "tuning/budget.hpp"
#include "tuning/compiling.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <set>
#include <thread>

namespace smlora::tuning {
namespace {

using namespace testing;

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

}  // namespace
}  // namespace smlora::tuning
