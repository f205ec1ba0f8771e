// A tuning while it is measured: saves what is known of it from time to time, and reports progress.
#pragma once

#include "tuning/device.hpp"
#include "tuning/measurement.hpp"
#include "tuning/trials.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace smlora::tuning {

/// Used by one thread at a time.
class Journal {
 public:
    /// Its seconds are counted from now.
    Journal(Device& device, Tuning& tuning, const Observer& observer);

    [[nodiscard]] std::vector<Trial>& trials() { return tuning_.trials; }
    /// Of the inputs that candidates are checked on.
    [[nodiscard]] std::uint64_t seed() const { return tuning_.seed; }

    void report(std::string_view phase, std::size_t done, std::size_t total);

    /// Saves the tuning, with the choice that the samples so far give.
    void save();
    /// The same, unless the last time was a moment ago.
    void save_now_and_then();
    /// Nothing is left to measure.
    void complete() { complete_ = true; }

    /// Runs a trial on the device for the first time. A kernel that faults ends the process's context, and one that
    /// hangs ends the process: the record tells the next process which it was.
    template <class Run>
    auto guarded(Trial& trial, const Run& run) {
        const Verdict before = std::exchange(trial.verdict, Verdict::running);
        save();
        try {
            auto result = run();
            trial.verdict = before;
            return result;
        } catch (const Error& error) {
            note_failure(trial, error.what());
            throw Error(error.code(), fmt::format("{}: {}", trial.candidate.name, error.what()));
        }
    }

 private:
    Device& device_;
    Tuning& tuning_;
    const Observer& observer_;
    const double start_;
    const double earlier_seconds_;
    double saved_;
    bool complete_ = false;
};

}  // namespace smlora::tuning
