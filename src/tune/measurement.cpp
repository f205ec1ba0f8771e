#include "tune/measurement.hpp"

#include "tune/choice.hpp"
#include "util/thread_pool.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <utility>

namespace smlora::tune {
namespace {

// Kernels that are compiled but never timed are of no use now, and neither are those that are checked only: some of the
// time is for timing.
constexpr double compiling_share = 0.6;
constexpr double checking_share = 0.5;  // of what compiling has left
// The heuristic choice and the next two: with fewer there is nothing to choose from, however long compiling takes.
constexpr std::size_t fewest = 3;
constexpr double drop_factor = 2;
// Inputs are cold when more than this many caches' worth of others came between.
constexpr std::uint64_t caches_rotated = 3;
// Each costs some allocations. Who needs more has operands of less than a few hundred KiB, which stay in the cache.
constexpr int most_sets = 256;
// Nothing that took longer than this to find out is lost when the process ends.
constexpr double save_interval = 0.25;

const Trial* trial_of(const std::vector<Trial>& trials, const Candidate& candidate) {
    const auto found = std::find_if(trials.begin(), trials.end(), [&](const Trial& trial) {
        return trial.candidate.configuration == candidate.configuration;
    });
    return found == trials.end() ? nullptr : &*found;
}

std::vector<Candidate> tried(const SearchSpace& space, const Protocol& protocol) {
    return protocol.breadth == Breadth::all ? legal(space) : shortlist(space, protocol.candidates);
}

class Measuring {
 public:
    Measuring(Device& device, const SearchSpace& space, const Protocol& protocol, util::ThreadPool& threads,
              Tuning& tuning, const Observer& observer)
        : device_(device), protocol_(protocol), threads_(threads), tuning_(tuning), observer_(observer) {
        start_ = saved_ = device_.now();
        std::vector<Trial> trials;
        for (Candidate& candidate : tried(space, protocol)) {
            const Trial* known = trial_of(tuning.trials, candidate);
            trials.push_back(known != nullptr ? *known : Trial{});
            trials.back().candidate = std::move(candidate);
            if (trials.back().verdict == Verdict::running) fail(trials.back(), "a process ended while it ran");
        }
        // A tuning that is resumed is checked on the same inputs.
        if (tuning.trials.empty() || tuning.seed == 0) tuning.seed = protocol.seed;
        std::swap(tuning.trials, trials);
        if (!trials.empty() && !tuning.trials.empty()) forget_another_yardstick(trials.front());
        prepared_.resize(tuning.trials.size());
        earlier_seconds_ = tuning.seconds;
    }

    Outcome run() {
        sets_ = rotated_sets();
        if (sets_ == 0) return Outcome::out_of_memory;
        try {
            compile();
            // Who follows a yardstick that is refused may have been decided before: a yardstick takes part again.
            while (yardstick() < tuning_.trials.size() && prepared_[yardstick()] == 0) compile();
            // A compile under way when its share of the time ends takes nothing from the measuring's share.
            deadline_ = std::max(protocol_.seconds, elapsed() + (1 - compiling_share) * protocol_.seconds);
            if (protocol_.breadth == Breadth::all) deadline_ = std::numeric_limits<double>::infinity();
            refuse_spilling();
            if (yardstick() < tuning_.trials.size()) {
                device_.allocate(sets_, tuning_.seed);
                check();
                sample();
                settled_ = all_decided() && run_off();
            } else {
                settled_ = all_decided();
            }
        } catch (...) {
            save();
            throw;
        }
        save();
        return tuning_.complete ? Outcome::complete : Outcome::out_of_time;
    }

 private:
    /// Of the time that counts.
    [[nodiscard]] double elapsed() const {
        const double from = counted_from_;
        return std::isnan(from) ? 0 : device_.now() - from;
    }
    [[nodiscard]] bool out_of_time() const { return elapsed() >= deadline_; }

    /// The trial that the others are compared with, as estimates() has it; behind the last when all are refused.
    [[nodiscard]] std::size_t yardstick() const {
        const auto found = std::find_if(tuning_.trials.begin(), tuning_.trials.end(),
                                        [](const Trial& trial) { return trial.verdict != Verdict::refused; });
        return static_cast<std::size_t>(found - tuning_.trials.begin());
    }

    /// Samples that were taken beside another heuristic choice cannot be compared with those to come.
    void forget_another_yardstick(const Trial& before) {
        if (before.candidate.configuration == tuning_.trials.front().candidate.configuration) return;
        for (Trial& trial : tuning_.trials) {
            trial.timing.reset();
            trial.samples.clear();
            if (trial.verdict != Verdict::refused) trial.verdict = Verdict::pending;
        }
    }

    /// None when not even one fits.
    [[nodiscard]] int rotated_sets() {
        const MemoryNeed need = device_.memory_need();
        const std::uint64_t budget = usable_bytes(protocol_, need);
        if (need.fixed_bytes > budget || need.set_bytes > budget - need.fixed_bytes) return 0;
        const std::uint64_t set_bytes = std::max<std::uint64_t>(need.set_bytes, 1);
        const std::uint64_t wanted = caches_rotated * need.l2_bytes / set_bytes + 1;
        const std::uint64_t fitting = (budget - need.fixed_bytes) / set_bytes;
        return static_cast<int>(std::clamp<std::uint64_t>(std::min(wanted, fitting), 1, most_sets));
    }

    /// What a thread takes at once: a part of a trial; behind the last trial, the reference.
    struct Unit {
        std::size_t trial = 0;
        std::size_t part = 0;
    };
    enum class Compiling : char { undecided, left_out, wanted };

    void compile() {
        const std::size_t parts = device_.parts();
        const std::size_t first = yardstick();
        const std::size_t reference = tuning_.trials.size();
        // Those of a runoff come when everybody has a verdict: until then time is for those without.
        const std::vector<std::size_t> racing = all_decided() ? undecided(tuning_.trials) : std::vector<std::size_t>{};
        std::vector<Unit> units;
        wanted_.clear();
        for (std::size_t i = 0; i < tuning_.trials.size(); ++i) {
            const bool races = std::find(racing.begin(), racing.end(), i) != racing.end();
            if (tuning_.trials[i].verdict != Verdict::pending && i != first && !races) continue;
            wanted_.push_back(i);
            tuning_.trials[i].spill_bytes = 0;
            for (std::size_t part = 0; part < parts; ++part) units.push_back({i, part});
            if (i == first) units.push_back({reference, 0});
        }
        compiling_.assign(tuning_.trials.size(), Compiling::undecided);
        parts_left_.assign(tuning_.trials.size(), parts);
        if (wanted_.empty()) start_counting();
        threads_.parallel_for(static_cast<std::int64_t>(units.size()), [&](std::int64_t at) {
            const Unit unit = units[static_cast<std::size_t>(at)];
            if (unit.trial == reference) {
                device_.prepare_reference();
            } else if (is_to_be_compiled(unit.trial)) {
                note(unit.trial, device_.prepare(tuning_.trials[unit.trial].candidate, unit.part));
            }
        });
    }

    /// Decided once for all parts of a trial, best predictions first.
    [[nodiscard]] bool is_to_be_compiled(std::size_t index) {
        const std::lock_guard lock(mutex_);
        if (compiling_[index] == Compiling::undecided) {
            const auto position = std::find(wanted_.begin(), wanted_.end(), index) - wanted_.begin();
            // Beside the yardstick, cores that it leaves idle cost no time.
            const bool wanted = protocol_.breadth == Breadth::all || static_cast<std::size_t>(position) < fewest ||
                                std::isnan(counted_from_) ||
                                elapsed() + longest_compile_ <= compiling_share * protocol_.seconds;
            compiling_[index] = wanted ? Compiling::wanted : Compiling::left_out;
        }
        return compiling_[index] == Compiling::wanted;
    }

    void note(std::size_t index, const Preparation& preparation) {
        const std::lock_guard lock(mutex_);
        Trial& trial = tuning_.trials[index];
        trial.registers = std::max(trial.registers, preparation.registers);
        trial.spill_bytes += preparation.spill_bytes;
        // What was found in the cache took its time in an earlier call.
        if (preparation.compile_seconds > 0) {
            if (parts_left_[index] == device_.parts()) trial.compile_seconds = 0;
            trial.compile_seconds += preparation.compile_seconds;
        }
        longest_compile_ = std::max(longest_compile_, preparation.compile_seconds);
        if (!preparation.refusal.empty()) refuse(trial, preparation.refusal);
        if (--parts_left_[index] > 0) return;
        prepared_[index] = 1;
        if (index == wanted_.front()) start_counting();
        const auto done = std::count(prepared_.begin(), prepared_.end(), 1);
        report("compiling", static_cast<std::size_t>(done), wanted_.size());
        save_now_and_then();
    }

    void start_counting() {
        if (!std::isnan(counted_from_)) return;
        counted_from_ = device_.now();
        if (observer_.started) observer_.started();
    }

    /// But for the heuristic choice, which is what runs otherwise.
    void refuse_spilling() {
        for (std::size_t i = 1; i < tuning_.trials.size(); ++i) {
            Trial& trial = tuning_.trials[i];
            if (trial.verdict == Verdict::pending && trial.spill_bytes > 0) {
                refuse(trial, fmt::format("spills {} bytes of registers", trial.spill_bytes));
            }
        }
    }

    /// Runs a trial on the device for the first time. A kernel that faults takes the process's context with it, one
    /// that hangs the process: the record tells the next process which it was.
    template <class Run>
    auto guarded(Trial& trial, const Run& run) {
        const Verdict before = std::exchange(trial.verdict, Verdict::running);
        save();
        try {
            auto result = run();
            trial.verdict = before;
            return result;
        } catch (const Error& error) {
            fail(trial, error.what());
            throw Error(error.code(), fmt::format("{}: {}", trial.candidate.name, error.what()));
        }
    }

    /// What else happened to the process then may not be its fault: the second time it is out.
    static void fail(Trial& trial, std::string_view how) {
        trial.verdict = Verdict::pending;
        if (trial.why.empty()) {
            trial.why = how;
        } else {
            refuse(trial, fmt::format("failed twice: {}; {}", trial.why, how));
        }
    }

    void check() {
        const double begin = elapsed();
        const double end = begin + checking_share * (deadline_ - begin);
        for (std::size_t i = 0; i < tuning_.trials.size(); ++i) {
            Trial& trial = tuning_.trials[i];
            if (!takes_part(i)) continue;
            if (checked_.size() >= fewest && elapsed() >= end) return;
            const double before = device_.now();
            const Verification verification = guarded(trial, [&] { return device_.verify(trial.candidate); });
            const double took = device_.now() - before;
            trial.spent_seconds += took;
            trial.error = std::isfinite(verification.error) ? verification.error : 1;
            checked_.push_back(i);
            if (!verification.refusal.empty()) {
                refuse(trial, verification.refusal);
            } else if (!std::isfinite(verification.error)) {
                refuse(trial, "its result or the reference's is not finite");
            } else if (took > protocol_.candidate_seconds && i != yardstick()) {
                refuse(trial, fmt::format("took {:.2f} s to check, and {:.2f} s are for one candidate", took,
                                          protocol_.candidate_seconds));
            }
            report("checking", checked_.size(), tuning_.trials.size());
            save_now_and_then();
        }
    }

    /// Prepared in this call and not out of the race.
    [[nodiscard]] bool takes_part(std::size_t index) const {
        return prepared_[index] != 0 && (tuning_.trials[index].verdict == Verdict::pending || index == yardstick());
    }

    void sample() {
        // Rounds of earlier calls stay as they are; the new ones come behind them.
        const std::size_t first = rounds_so_far();
        std::vector<std::size_t> running;
        for (const std::size_t i : checked_) {
            if (takes_part(i)) running.push_back(i);
        }
        for (int round = 0; !running.empty(); ++round) {
            const std::size_t row = first + static_cast<std::size_t>(round);
            // The first whatever the time: or a device on which checking takes long would never come to a choice.
            if (!take_round(running, row, round, round > 0)) return;
            if (round == 0) time_slow_ones_again(running, row);
            settle(running, round);
            report("timing", static_cast<std::size_t>(round) + 1, static_cast<std::size_t>(protocol_.rounds));
        }
    }

    [[nodiscard]] std::size_t rounds_so_far() const {
        std::size_t rounds = 0;
        for (const Trial& trial : tuning_.trials) rounds = std::max(rounds, trial.samples.size());
        return rounds;
    }

    /// A sample of each. Whether time did not run out, if it counts.
    bool take_round(const std::vector<std::size_t>& running, std::size_t row, int round, bool time_counts) {
        for (std::size_t at = 0; at < running.size(); ++at) {
            if (time_counts && out_of_time()) return false;
            // Each is first in its turn: what the first sample of a round suffers, everybody does.
            Trial& trial = tuning_.trials[running[(at + static_cast<std::size_t>(round)) % running.size()]];
            const double seconds = timed(trial, row);
            trial.samples.resize(row, no_sample);
            trial.samples.push_back(seconds);
            save_now_and_then();
        }
        return true;
    }

    double timed(Trial& trial, std::size_t row) {
        const double before = device_.now();
        const auto run = [&] { return device_.time(trial.candidate, next_set_, row); };
        const bool first = trial.taken() == 0;
        const double seconds = first ? guarded(trial, run) : run();
        if (first) trial.why.clear();
        trial.spent_seconds += device_.now() - before;
        next_set_ = (next_set_ + 1) % sets_;
        // Whole nanoseconds, as a record keeps them.
        return std::round(seconds * 1e9) / 1e9;
    }

    [[nodiscard]] bool all_decided() const {
        return std::none_of(tuning_.trials.begin(), tuning_.trials.end(),
                            [](const Trial& trial) { return trial.verdict == Verdict::pending; });
    }

    /// Further rounds of those that only noise makes equals, and the yardstick. Whether that leaves nothing to be done:
    /// time did not run out, and none of them is to be compiled by a later call first.
    bool run_off() {
        std::size_t row = rounds_so_far();
        while (std::max(most_taken(), protocol_.rounds) < (1 + protocol_.runoffs) * protocol_.rounds) {
            const std::vector<std::size_t> running = finalists();
            if (running.empty()) return all_prepared(undecided(tuning_.trials));
            for (int round = 0; round < protocol_.rounds; ++round, ++row) {
                if (!take_round(running, row, round, true)) return false;
                report("timing", static_cast<std::size_t>(round) + 1, static_cast<std::size_t>(protocol_.rounds));
            }
        }
        return true;
    }

    [[nodiscard]] bool all_prepared(const std::vector<std::size_t>& trials) const {
        return std::all_of(trials.begin(), trials.end(), [&](std::size_t i) { return prepared_[i] != 0; });
    }

    /// Samples of whoever has most of them, but for the yardstick, which takes part in everything.
    [[nodiscard]] int most_taken() const {
        int most = 0;
        for (std::size_t i = 0; i < tuning_.trials.size(); ++i) {
            if (i != yardstick()) most = std::max(most, tuning_.trials[i].taken());
        }
        return most;
    }

    /// Those that are compiled and have time left.
    [[nodiscard]] std::vector<std::size_t> finalists() const {
        std::vector<std::size_t> found = undecided(tuning_.trials);
        if (found.empty()) return found;
        if (found.front() != yardstick()) found.insert(found.begin(), yardstick());
        std::erase_if(found, [&](std::size_t i) {
            return prepared_[i] == 0 ||
                   (i != yardstick() && tuning_.trials[i].spent_seconds > protocol_.candidate_seconds);
        });
        return found.size() > 1 ? found : std::vector<std::size_t>{};
    }

    /// A single sample may have met an interruption, and who is dropped does not come back: it has a second one, and
    /// the better of the two counts.
    void time_slow_ones_again(const std::vector<std::size_t>& running, std::size_t row) {
        for (const std::size_t i : too_slow(running)) {
            Trial& trial = tuning_.trials[i];
            trial.samples[row] = std::min(trial.samples[row], timed(trial, row));
        }
    }

    /// Of those in the running, but for the yardstick.
    [[nodiscard]] std::vector<std::size_t> too_slow(const std::vector<std::size_t>& running) const {
        if (protocol_.breadth == Breadth::all) return {};
        const std::vector<Estimate> times = estimates(tuning_.trials);
        double best = std::numeric_limits<double>::infinity();
        for (const Estimate& time : times) {
            if (time.samples > 0) best = std::min(best, time.seconds);
        }
        std::vector<std::size_t> slow;
        for (const std::size_t i : running) {
            if (i != yardstick() && times[i].seconds >= drop_factor * best) slow.push_back(i);
        }
        return slow;
    }

    /// Takes those out of the running that are slow, done, or have had their time. The yardstick stays as long as
    /// anybody needs it.
    void settle(std::vector<std::size_t>& running, int round) {
        if (round == 0) {
            for (const std::size_t i : too_slow(running)) tuning_.trials[i].verdict = Verdict::slow;
        }
        const auto is_done = [&](const Trial& trial) {
            const int samples = trial.taken();
            return samples >= protocol_.rounds || (samples > 0 && trial.spent_seconds > protocol_.candidate_seconds);
        };
        const std::size_t first = yardstick();
        bool others = false;
        for (const std::size_t i : running) {
            if (i == first) continue;
            Trial& trial = tuning_.trials[i];
            if (trial.verdict == Verdict::pending && is_done(trial)) trial.verdict = Verdict::measured;
            others = others || trial.verdict == Verdict::pending;
        }
        if (!others && is_done(tuning_.trials[first])) tuning_.trials[first].verdict = Verdict::measured;
        std::erase_if(running, [&](std::size_t i) {
            return tuning_.trials[i].verdict != Verdict::pending && (i != first || !others);
        });
    }

    static void refuse(Trial& trial, std::string why) {
        trial.verdict = Verdict::refused;
        trial.why = std::move(why);
        trial.timing.reset();
        trial.samples.clear();
    }

    void report(std::string_view phase, std::size_t done, std::size_t total) {
        if (!observer_.progress) return;
        Progress progress{tuning_.slot, phase, done, total, {}, 0};
        const std::vector<Estimate> times = estimates(tuning_.trials);
        for (std::size_t i = 0; i < times.size(); ++i) {
            if (times[i].samples == 0 || (!progress.best.empty() && times[i].seconds >= progress.best_seconds))
                continue;
            progress.best = tuning_.trials[i].candidate.name;
            progress.best_seconds = times[i].seconds;
        }
        observer_.progress(progress);
    }

    void save_now_and_then() {
        if (device_.now() - saved_ >= save_interval) save();
    }

    void save() {
        update();
        if (observer_.save) observer_.save(tuning_);
        saved_ = device_.now();
    }

    void update() {
        tuning_.seconds = earlier_seconds_ + device_.now() - start_;
        tuning_.complete = settled_;
        if (settled_) condense(tuning_.trials);
        const Judgement judgement = judge(tuning_.trials);
        tuning_.choice.reset();
        if (judgement.winner) tuning_.choice = tuning_.trials[*judgement.winner].candidate.configuration;
    }

    Device& device_;
    const Protocol& protocol_;
    util::ThreadPool& threads_;
    Tuning& tuning_;
    const Observer& observer_;
    double start_ = 0;
    std::atomic<double> counted_from_ = no_sample;
    double deadline_ = 0;  // of elapsed()
    double saved_ = 0;
    double earlier_seconds_ = 0;
    int sets_ = 0;  // of operands, and which comes next
    int next_set_ = 0;
    bool settled_ = false;             // nothing is left to measure
    std::vector<std::size_t> wanted_;  // trials that are not decided, and the yardstick, which leads
    std::vector<char> prepared_;       // by trial
    std::vector<std::size_t> checked_;
    std::mutex mutex_;  // of what threads that compile share:
    std::vector<Compiling> compiling_;
    std::vector<std::size_t> parts_left_;
    double longest_compile_ = 0;  // of one part
};

}  // namespace

std::uint64_t usable_bytes(const Protocol& protocol, const MemoryNeed& need) {
    return protocol.memory_bytes.value_or(need.free_bytes / 8);
}

bool covers(const Tuning& tuning, const SearchSpace& space, const Protocol& protocol) {
    const std::vector<Candidate> wanted = tried(space, protocol);
    return std::all_of(wanted.begin(), wanted.end(), [&](const Candidate& candidate) {
        const Trial* trial = trial_of(tuning.trials, candidate);
        return trial != nullptr && trial->verdict != Verdict::pending && trial->verdict != Verdict::running;
    });
}

Outcome measure(Device& device, const SearchSpace& space, const Protocol& protocol, util::ThreadPool& threads,
                Tuning& tuning, const Observer& observer) {
    return Measuring(device, space, protocol, threads, tuning, observer).run();
}

}  // namespace smlora::tune
