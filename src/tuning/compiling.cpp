#include "tuning/compiling.hpp"

#include "util/thread_pool.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>

namespace smlora::tuning {
namespace {

using Done = std::function<void(std::size_t index, const Compilation&)>;

/// A kernel: a part of a candidate, or of the reference, whose number is the one behind the last candidate's.
struct Unit {
    std::size_t owner = 0;
    std::size_t part = 0;
};

/// What the kernels showed so far. Thread-safe.
class Findings {
 public:
    Findings(std::size_t candidates, std::size_t parts, const Done& done)
        : done_(done), compilations_(candidates), reference_parts_missing_(parts) {
        for (Compilation& compilation : compilations_) compilation.parts_missing = parts;
    }

    void add(const Unit& unit, const Preparation& preparation) {
        const std::lock_guard lock(mutex_);
        if (unit.owner == compilations_.size()) {
            --reference_parts_missing_;
            return;
        }
        Compilation& of = compilations_[unit.owner];
        const bool was_refused = !of.refusal.empty();
        --of.parts_missing;
        of.registers = std::max(of.registers, preparation.registers);
        of.spill_bytes += preparation.spill_bytes;
        // What was found took its time in an earlier call.
        if (preparation.compile_seconds > 0) {
            ++of.parts_compiled;
            of.seconds += preparation.compile_seconds;
        }
        if (!preparation.refusal.empty()) of.refusal = preparation.refusal;
        const bool is_decided = !of.refusal.empty() || of.parts_missing == 0;
        if (is_decided && !was_refused) done_(unit.owner, of);
    }

    /// What is known not to work needs no further parts.
    [[nodiscard]] bool needs(const Unit& unit) const {
        const std::lock_guard lock(mutex_);
        return unit.owner == compilations_.size() || compilations_[unit.owner].refusal.empty();
    }

    [[nodiscard]] CompiledCandidates take() { return {std::move(compilations_), reference_parts_missing_ == 0}; }

 private:
    mutable std::mutex mutex_;
    const Done& done_;
    std::vector<Compilation> compilations_;
    std::size_t reference_parts_missing_;
};

/// Decides which kernel a thread begins next, if any. Thread-safe.
class Schedule {
 public:
    Schedule(Device& device, std::vector<Unit> units, double seconds)
        : device_(device), units_(std::move(units)), seconds_(seconds), begin_(device.now()) {}

    /// The number of the next unit; nothing when none is left, or none would end in time.
    [[nodiscard]] std::optional<std::size_t> begin(const Findings& findings) {
        const std::lock_guard lock(mutex_);
        while (next_ < units_.size() && !findings.needs(units_[next_])) ++next_;
        if (next_ == units_.size()) return std::nullopt;
        const double now = device_.now() - begin_;
        // One that still runs takes at least as long as it has taken.
        const double oldest = running_.empty() ? 0 : now - running_.begin()->second;
        if (now + std::max(longest_, oldest) > seconds_) {
            next_ = units_.size();
            return std::nullopt;
        }
        running_[next_] = now;
        return next_++;
    }

    void end(std::size_t number, double seconds) {
        const std::lock_guard lock(mutex_);
        running_.erase(number);
        longest_ = std::max(longest_, seconds);
    }

    /// No further one is begun.
    void close() {
        const std::lock_guard lock(mutex_);
        next_ = units_.size();
    }

    [[nodiscard]] const Unit& unit(std::size_t number) const { return units_[number]; }

 private:
    Device& device_;
    const std::vector<Unit> units_;
    const double seconds_;
    const double begin_;
    std::mutex mutex_;
    std::size_t next_ = 0;
    std::map<std::size_t, double> running_;  ///< when each was begun; the lowest number is the oldest
    double longest_ = 0;
};

/// The kernels of all candidates, in the order in which they are wanted.
std::vector<Unit> units_of(std::size_t candidates, std::size_t parts) {
    std::vector<Unit> units;
    const auto add = [&](std::size_t owner) {
        for (std::size_t part = 0; part < parts; ++part) units.push_back({owner, part});
    };
    for (std::size_t i = 0; i < candidates; ++i) {
        add(i);
        // Without it nothing can be checked.
        if (i == 0) add(candidates);
    }
    return units;
}

}  // namespace

CompiledCandidates compile_candidates(Device& device, const std::vector<Candidate>& candidates, double seconds,
                                      util::ThreadPool& threads, const Done& done) {
    const double begin = device.now();
    const std::size_t parts = device.parts();
    const std::size_t reference = candidates.size();
    const std::vector<Unit> units = units_of(candidates.size(), parts);
    Findings findings(candidates.size(), parts, done);
    std::vector<std::optional<Preparation>> found(units.size());
    threads.parallel_for(static_cast<std::int64_t>(units.size()), [&](std::int64_t at) {
        const auto i = static_cast<std::size_t>(at);
        const Unit& unit = units[i];
        found[i] =
            unit.owner == reference ? device.find_reference(unit.part) : device.find(candidates[unit.owner], unit.part);
        if (found[i]) findings.add(unit, *found[i]);
    });
    std::vector<Unit> missing;
    for (std::size_t i = 0; i < units.size(); ++i) {
        if (!found[i]) missing.push_back(units[i]);
    }
    // The first is begun even when looking has taken all of the time, or a short budget would never come to anything.
    Schedule schedule(device, std::move(missing), std::max(0.0, seconds - (device.now() - begin)));
    threads.parallel_for(threads.threads(), [&](std::int64_t) {
        while (const std::optional<std::size_t> number = schedule.begin(findings)) {
            const Unit& unit = schedule.unit(*number);
            try {
                const Preparation preparation = unit.owner == reference
                                                    ? device.prepare_reference(unit.part)
                                                    : device.prepare(candidates[unit.owner], unit.part);
                schedule.end(*number, preparation.compile_seconds);
                findings.add(unit, preparation);
            } catch (...) {
                schedule.close();
                throw;
            }
        }
    });
    return findings.take();
}

}  // namespace smlora::tuning
