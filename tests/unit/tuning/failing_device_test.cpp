// What the measurement protocol keeps, and whom it refuses, when a candidate faults or the process ends.
#include "tuning/measurement.hpp"

#include "measuring.hpp"
#include "tuning/record.hpp"

#include <gtest/gtest.h>

namespace smlora::tuning {
namespace {

using namespace testing;

TEST_F(Measuring, WhatWasMeasuredIsSavedWhenTheDeviceDies) {
    const unsigned seed = fresh_seed();
    Landscape land(seed, 10);
    protocol.runoffs = 0;
    FakeDevice device(land.planted, seed);
    device.launches_a_sample = 100;
    device.die_after = 25;
    std::vector<Tuning> saved;
    EXPECT_THROW(run(device, land.space, {{}, [&](const Tuning& state) { saved.push_back(state); }}),
                 std::runtime_error);
    ASSERT_GT(saved.size(), 3u) << "now and then, not only at the end";
    EXPECT_FALSE(saved.back().complete);
    std::size_t samples = 0;
    for (const Trial& one : saved.back().trials) {
        samples += static_cast<std::size_t>(one.taken());
    }
    EXPECT_GE(samples, 15u) << "25, less the second ones of those that seemed slow";
    tuning = saved.back();
    FakeDevice second(land.planted, seed + 1);
    EXPECT_EQ(run(second, land.space), Outcome::complete);
    EXPECT_LT(second.timed.size(), static_cast<std::size_t>(10 * protocol.rounds));
}

TEST_F(Measuring, WhatFaultsIsNamedAndIsOutTheSecondTime) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 3e-3)};
    const std::map<std::string, Planted> planted{
        {"c00", {1e-3}}, {"c01", {0.5e-3, 0.1, 0.01, 0, "", false, true}}, {"c02", {0.8e-3}}};
    for (int process = 0; process < 2; ++process) {
        FakeDevice device(planted, fresh_seed());
        try {
            run(device, space);
            ADD_FAILURE() << "nothing was thrown";
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::cuda);
            EXPECT_EQ(error.what(), std::string("c01: an illegal address"));
        }
        EXPECT_FALSE(tuning.complete);
    }
    FakeDevice device(planted, fresh_seed());
    EXPECT_EQ(run(device, space), Outcome::complete);
    EXPECT_EQ(trial("c01").verdict, Verdict::refused);
    EXPECT_EQ(trial("c01").why, "failed twice: an illegal address; an illegal address");
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c02");
}

TEST_F(Measuring, WhatEndsTheProcessTwiceIsOutAndWhatDidOnceIsNot) {
    const SearchSpace space{candidate(0, 1e-3), candidate(1, 2e-3), candidate(2, 3e-3)};
    std::map<std::string, Planted> planted{
        {"c00", {1e-3}}, {"c01", {0.5e-3, 0.1, 0.01, 0, "", false, false, true}}, {"c02", {0.8e-3}}};
    Tuning recorded;
    const Observer observer{{}, [&](const Tuning& state) { recorded = state; }};
    const auto die = [&] {
        FakeDevice device(planted, fresh_seed());
        EXPECT_THROW(run(device, space, observer), std::runtime_error);
        // Through the record's text, as the next process has it.
        std::string why;
        const auto read = parse_record(record_text({{"gpu", "problem", 11}, {recorded}}), why);
        ASSERT_TRUE(read) << why;
        tuning = read->tunings.at(0);
        EXPECT_EQ(trial("c01").verdict, Verdict::running);
        EXPECT_FALSE(covers(tuning, space, protocol));
    };
    die();
    const Tuning after_one = tuning;
    die();
    FakeDevice third(planted, fresh_seed());
    EXPECT_EQ(run(third, space), Outcome::complete);
    EXPECT_EQ(trial("c01").why, "failed twice: a process ended while it ran; a process ended while it ran");
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c02");

    tuning = after_one;
    planted.at("c01").kills = false;
    FakeDevice second(planted, fresh_seed());
    EXPECT_EQ(run(second, space), Outcome::complete);
    EXPECT_EQ(trial("c01").verdict, Verdict::measured);
    EXPECT_EQ(trial("c01").why, "");
    EXPECT_EQ(name_of(tuning.trials, tuning.choice), "c01");
}

}  // namespace
}  // namespace smlora::tuning
