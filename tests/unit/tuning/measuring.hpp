// The fixture of tests that measure on machines whose truth is known.
#pragma once

#include "fake_device.hpp"
#include "tuning/measurement.hpp"
#include "util/thread_pool.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>

namespace smlora::tuning::testing {

inline unsigned fresh_seed() {
    const unsigned seed = std::random_device()();
    ::testing::Test::RecordProperty("seed", std::to_string(seed));
    return seed;
}

inline Tuning untried() {
    Tuning tuning;
    tuning.slot = "work";
    return tuning;
}

/// Candidates whose predictions are off by up to a third of the truth.
struct Landscape {
    SearchSpace space;
    std::map<std::string, Planted> planted;
    std::string fastest;

    Landscape(unsigned seed, int count) {
        std::mt19937 random(seed);
        std::uniform_real_distribution<double> truth(1e-3, 3e-3), error(0.75, 1.33);
        double best = 1;
        for (int i = 0; i < count; ++i) {
            Planted plan;
            plan.seconds = truth(random);
            plan.compile_seconds = 0.01;
            Candidate made = candidate(i, plan.seconds * error(random), 1000 + i % 7);
            if (plan.seconds < best) {
                best = plan.seconds;
                fastest = made.name;
            }
            planted[made.name] = plan;
            space.push_back(std::move(made));
        }
    }
};

class Measuring : public ::testing::Test {
 protected:
    Outcome run(FakeDevice& device, const SearchSpace& space, const Observer& observer = {}) {
        return measure(device, space, protocol, threads, tuning, observer);
    }
    const Trial& trial(const std::string& name) const {
        for (const Trial& one : tuning.trials) {
            if (one.candidate.name == name) return one;
        }
        throw std::runtime_error("no trial of " + name);
    }

    util::ThreadPool threads{1};
    Protocol protocol;
    Tuning tuning = untried();
};

}  // namespace smlora::tuning::testing
