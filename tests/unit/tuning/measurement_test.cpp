// The measurement protocol on machines whose truth is known.
#include "tuning/measurement.hpp"

#include "measuring.hpp"
#include "tuning/choice.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>

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

}  // namespace
}  // namespace smlora::tuning
