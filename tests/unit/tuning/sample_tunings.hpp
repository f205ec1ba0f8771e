// Tunings as they might have been measured.
#pragma once

#include "tuning/choice.hpp"
#include "tuning/record.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace smlora::tuning::testing {

inline Environment here() {
    return {"NVIDIA H200", "sm_90a", 132, "13.0", "13.0.88", "0123456789abcdef0123456789abcdef"};
}

inline RecordName sample_name(std::uint8_t bucket = 11) {
    return {"NVIDIA H200", "E8 K64 N32 R4 k2 bf16 ekn token->scattered", bucket};
}

inline Tuning sample_tuning(const std::string& slot = "forward", int best = 1, bool complete = true) {
    Tuning tuning;
    tuning.slot = slot;
    tuning.environment = here();
    tuning.workload = {2048, "uniform"};
    tuning.date = "2026-11-23T10:11:12Z";
    tuning.seed = 0xFEDCBA9876543210U;
    tuning.seconds = 1.25;
    tuning.complete = complete;
    for (int i = 0; i < 4; ++i) {
        Trial trial;
        trial.candidate = {
            "tile " + std::to_string(i), {"family", {{"TILE", 64 + i}, {"STAGES", i}}}, 1e-3 + i * 1e-6, 1024 * i, ""};
        trial.verdict = i == 3 ? Verdict::refused : i == 2 ? Verdict::slow : Verdict::measured;
        trial.why = i == 3 ? "spills 8 bytes of registers" : "";
        trial.registers = 100 + i;
        trial.spill_bytes = i == 3 ? 8 : 0;
        trial.compile_seconds = 0.5;
        trial.error = 1.5e-3;
        trial.spent_seconds = 0.125;
        if (i < 2) trial.samples = {1.234567e-3 * (i == best ? 0.8 : 1), no_sample, 1.25e-3 * (i == best ? 0.8 : 1)};
        if (i == 2) trial.samples = {9e-3};
        tuning.trials.push_back(std::move(trial));
    }
    tuning.choice = tuning.trials[static_cast<std::size_t>(best)].candidate.configuration;
    return tuning;
}

/// As it is when there is nothing left to measure.
inline Tuning condensed_tuning(const std::string& slot = "dx", int best = 1) {
    Tuning tuning = sample_tuning(slot, best);
    condense(tuning.trials);
    return tuning;
}

inline SearchSpace sample_space() {
    SearchSpace space;
    for (const Trial& trial : sample_tuning().trials) space.push_back(trial.candidate);
    return space;
}

inline void expect_same(const Tuning& a, const Tuning& b) {
    EXPECT_EQ(a.slot, b.slot);
    EXPECT_EQ(a.environment, b.environment);
    EXPECT_EQ(a.workload.tokens, b.workload.tokens);
    EXPECT_EQ(a.workload.routing, b.workload.routing);
    EXPECT_EQ(a.date, b.date);
    EXPECT_EQ(a.seed, b.seed);
    EXPECT_EQ(a.seconds, b.seconds);
    EXPECT_EQ(a.complete, b.complete);
    EXPECT_EQ(a.choice, b.choice);
    ASSERT_EQ(a.trials.size(), b.trials.size());
    for (std::size_t i = 0; i < a.trials.size(); ++i) {
        const Trial &x = a.trials[i], &y = b.trials[i];
        EXPECT_EQ(x.candidate.name, y.candidate.name);
        EXPECT_EQ(x.candidate.configuration, y.candidate.configuration);
        EXPECT_NEAR(x.candidate.predicted_seconds, y.candidate.predicted_seconds, 1e-9);
        EXPECT_EQ(x.candidate.shared_bytes, y.candidate.shared_bytes);
        EXPECT_EQ(x.verdict, y.verdict);
        EXPECT_EQ(x.why, y.why);
        EXPECT_EQ(x.registers, y.registers);
        EXPECT_EQ(x.spill_bytes, y.spill_bytes);
        EXPECT_EQ(x.error, y.error);
        EXPECT_EQ(x.timing, y.timing);
        ASSERT_EQ(x.samples.size(), y.samples.size());
        for (std::size_t s = 0; s < x.samples.size(); ++s) {
            EXPECT_EQ(std::isnan(x.samples[s]), std::isnan(y.samples[s]));
            EXPECT_TRUE(std::isnan(x.samples[s]) || std::abs(x.samples[s] - y.samples[s]) < 1e-9);
        }
    }
}

}  // namespace smlora::tuning::testing
