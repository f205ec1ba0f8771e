// What the tests of tuning share: an engine that keeps its log, and records made up for it.
#pragma once

#include "autotune/tuner.hpp"
#include "engine/engine_impl.hpp"
#include "gpu/device.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"
#include "support/tunings.hpp"
#include "tuning/record_store.hpp"
#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>

namespace smlora::autotune {

inline Problem small_problem() {
    Problem problem;
    problem.E = 8;
    problem.K = 256;
    problem.N = 512;
    problem.R = 16;
    problem.top_k = 2;
    return problem;
}

inline gpu::DeviceFacts h200() { return gpu::facts_of(gpu::arch_from_name("sm_90a")); }

/// On one family of products, so that the spaces are those of every GPU.
class Tuning : public ::testing::Test {
 protected:
    Tuning() { setenv("SMLORA_INSTRUCTIONS", "mma", 1); }
    ~Tuning() override { unsetenv("SMLORA_INSTRUCTIONS"); }

    [[nodiscard]] Engine engine(TuningPolicy policy, Determinism determinism = Determinism::run) {
        EngineOptions options;
        options.backend = Backend::cpu;
        options.cache_root = scratch.path() / "cache";
        options.cache_layers.emplace();
        options.threads = 1;
        options.tuning = policy;
        options.determinism = determinism;
        options.log = [this](LogLevel level, std::string_view line) { lines.emplace_back(level, std::string(line)); };
        return Engine(std::move(options));
    }

    /// Records that `choice` of a space was measured to be best.
    void record(Engine& engine, const KnownWork& work, const tuning::Candidate& choice, bool complete = true,
                const std::function<void(tuning::Tuning&)>& change = {}) {
        tuning::Tuning tuning = test::measured_tuning(work, [&](const tuning::Candidate& candidate, std::size_t) {
            const double seconds = candidate.configuration == choice.configuration ? 0.5e-3 : 1e-3;
            return std::vector<double>(3, seconds);
        });
        tuning.complete = complete;
        tuning.choice = choice.configuration;
        if (change) change(tuning);
        tuning::RecordStore store(engine.impl().cache, engine.impl().log);
        ASSERT_TRUE(store.save(work.name, tuning));
    }

    /// A legal candidate that is not the heuristic choice.
    [[nodiscard]] static tuning::Candidate another(const tuning::SearchSpace& space) {
        return tuning::shortlist(space, 24).at(3);
    }

    [[nodiscard]] bool logged(const std::string& part) const {
        return std::any_of(lines.begin(), lines.end(),
                           [&](const auto& line) { return line.second.find(part) != std::string::npos; });
    }

    testing::ScratchFolder scratch;
    std::vector<std::pair<LogLevel, std::string>> lines;
    Problem problem = small_problem();
    plan::Request forward = plan::step_requests(small_problem(), 64).at(0);
};

}  // namespace smlora::autotune
