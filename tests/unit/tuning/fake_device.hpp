// A machine with a planted cost landscape: what each candidate takes, how noisy that is, and what is wrong with it.
#pragma once

#include "tuning/device.hpp"
#include "tuning/tuning.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace smlora::tuning::testing {

struct Planted {
    double seconds = 1e-3;  ///< what it really takes
    double compile_seconds = 0.1;
    double check_seconds = 0.01;
    std::int64_t spill_bytes = 0;
    std::string compile_error = {};
    bool wrong = false;
    bool faults = false;  ///< the driver says so
    bool kills = false;   ///< the process is gone with it
};

/// The clock moves by what things cost and by nothing else.
class FakeDevice : public Device {
 public:
    explicit FakeDevice(std::map<std::string, Planted> planted, unsigned seed = 1)
        : planted_(std::move(planted)), random_(seed) {}

    double now() override { return static_cast<double>(nanoseconds_.load()) * 1e-9; }
    MemoryNeed memory_need() override { return memory; }
    std::size_t parts() override { return parts_of_each; }
    std::optional<Preparation> find(const Candidate& candidate, std::size_t part) override {
        const std::lock_guard lock(mutex_);
        const Planted& plan = planted_.at(candidate.name);
        if (plan.compile_seconds > 0 && compiled.count({candidate.name, part}) == 0) return std::nullopt;
        return noted(candidate, part, 0);
    }
    Preparation prepare(const Candidate& candidate, std::size_t part) override {
        const double seconds = planted_.at(candidate.name).compile_seconds / static_cast<double>(parts_of_each);
        pass(seconds);
        const std::lock_guard lock(mutex_);
        longest_compile = std::max(longest_compile, seconds);
        compiled.insert({candidate.name, part});
        return noted(candidate, part, seconds);
    }
    std::optional<Preparation> find_reference(std::size_t part) override {
        const std::lock_guard lock(mutex_);
        if (compiled.count({"", part}) == 0) return std::nullopt;
        return Preparation{};
    }
    Preparation prepare_reference(std::size_t part) override {
        pass(reference_seconds);
        const std::lock_guard lock(mutex_);
        longest_compile = std::max(longest_compile, reference_seconds);
        compiled.insert({"", part});
        ++references;
        return {"", 30, 0, reference_seconds};
    }
    void allocate(int sets_, std::uint64_t seed) override {
        sets = sets_;
        seeds.push_back(seed);
    }
    Verification verify(const Candidate& candidate) override {
        const Planted& plan = planted_.at(candidate.name);
        pass(plan.check_seconds);
        verified.push_back(candidate.name);
        if (plan.faults) throw Error(ErrorCode::cuda, "an illegal address");
        if (plan.kills) throw std::runtime_error("the process is gone");
        return {plan.wrong ? "row 3: expected 1, got 2" : "", plan.wrong ? 1.0 : 1e-3};
    }
    double time(const Candidate& candidate, int set, std::size_t round) override {
        if (die_after >= 0 && die_after-- == 0) throw std::runtime_error("the process is gone");
        sets_used.insert(set);
        timed.push_back(candidate.name);
        rounds.push_back(round);
        std::normal_distribution<double> normal(0, noise);
        // Clocks drift slowly, for every candidate alike, and now and then something else interrupts.
        const double drift = 1 + drift_amplitude * std::sin(now() * 0.7);
        const double spike = std::bernoulli_distribution(spikes)(random_) ? 3 : 1;
        const double sample = planted_.at(candidate.name).seconds * drift * spike * std::max(0.5, 1 + normal(random_));
        pass(sample * launches_a_sample);
        return sample;
    }

    MemoryNeed memory{0, std::uint64_t{1} << 20, std::uint64_t{50} << 20, std::uint64_t{64} << 30};
    double noise = 0.01;
    double drift_amplitude = 0;
    double spikes = 0;
    double launches_a_sample = 3;
    int die_after = -1;
    std::size_t parts_of_each = 2;

    double reference_seconds = 0;  ///< of one part
    /// The cache: candidates' names and parts; the reference has no name.
    std::set<std::pair<std::string, std::size_t>> compiled;
    double longest_compile = 0;
    int references = 0;
    int parts_prepared = 0;
    int sets = 0;
    std::vector<std::uint64_t> seeds;
    std::vector<std::string> prepared, verified, timed;
    std::vector<std::size_t> rounds;  ///< of `timed`
    std::set<int> sets_used;

 private:
    Preparation noted(const Candidate& candidate, std::size_t part, double seconds) {
        const Planted& plan = planted_.at(candidate.name);
        if (part == 0) prepared.push_back(candidate.name);
        ++parts_prepared;
        return {plan.compile_error, 100, part == 0 ? plan.spill_bytes : 0, seconds};
    }
    void pass(double seconds) { nanoseconds_ += static_cast<std::int64_t>(std::llround(seconds * 1e9)); }

    std::map<std::string, Planted> planted_;
    std::mt19937 random_;
    std::atomic<std::int64_t> nanoseconds_{0};
    std::mutex mutex_;
};

/// Predicted to be in the order of `predicted`, and never so slow that it is not tried.
inline Candidate candidate(int number, double predicted, std::int64_t shared = 1000) {
    return {fmt::format("c{:02}", number), {"family", {{"TILE", number}}}, 1 + predicted, shared, ""};
}

inline std::string name_of(const std::vector<Trial>& trials, const std::optional<Configuration>& choice) {
    for (const Trial& trial : trials) {
        if (choice && trial.candidate.configuration == *choice) return trial.candidate.name;
    }
    return "none";
}

}  // namespace smlora::tuning::testing
