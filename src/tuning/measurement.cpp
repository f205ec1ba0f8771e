#include "tuning/measurement.hpp"

#include "tuning/checking.hpp"
#include "tuning/choice.hpp"
#include "tuning/compiling.hpp"
#include "tuning/journal.hpp"
#include "tuning/race.hpp"
#include "tuning/trials.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

namespace smlora::tuning {
namespace {

// Kernels that are compiled but never timed are of no use now, and neither are those that are checked only: some of the
// time is for timing.
constexpr double compiling_share = 0.6;
constexpr double checking_share = 0.5;  // of what compiling has left
// Inputs are cold when more than this many caches' worth of others came between.
constexpr std::uint64_t caches_rotated = 3;
// Each costs some allocations. Work that needs more has operands of less than a few hundred KiB, which stay in the
// cache.
constexpr int most_sets = 256;

const Trial* trial_of(const std::vector<Trial>& trials, const Candidate& candidate) {
    const auto found = std::find_if(trials.begin(), trials.end(), [&](const Trial& trial) {
        return trial.candidate.configuration == candidate.configuration;
    });
    return found == trials.end() ? nullptr : &*found;
}

std::vector<Candidate> tried(const SearchSpace& space, const Protocol& protocol) {
    return protocol.breadth == Breadth::all ? legal(space) : shortlist(space, protocol.candidates);
}

/// Samples that were taken beside another heuristic choice cannot be compared with those to come.
void forget_another_yardstick(const Candidate& before, std::vector<Trial>& trials) {
    if (before.configuration == trials.front().candidate.configuration) return;
    for (Trial& trial : trials) {
        trial.timing.reset();
        trial.samples.clear();
        if (trial.verdict != Verdict::refused) trial.verdict = Verdict::pending;
    }
}

/// Gives `tuning` a trial of each candidate that is tried, with what it knows of them.
void lay_out(Tuning& tuning, const SearchSpace& space, const Protocol& protocol) {
    std::vector<Trial> trials;
    for (Candidate& candidate : tried(space, protocol)) {
        const Trial* known = trial_of(tuning.trials, candidate);
        trials.push_back(known != nullptr ? *known : Trial{});
        trials.back().candidate = std::move(candidate);
        if (trials.back().verdict == Verdict::running) note_failure(trials.back(), "a process ended while it ran");
    }
    // A tuning that is resumed is checked on the same inputs.
    if (tuning.trials.empty() || tuning.seed == 0) tuning.seed = protocol.seed;
    std::swap(tuning.trials, trials);
    if (!trials.empty() && !tuning.trials.empty()) {
        forget_another_yardstick(trials.front().candidate, tuning.trials);
    }
}

/// Of operands; none when not even one fits.
int rotated_sets(const Protocol& protocol, const MemoryNeed& need) {
    const std::uint64_t budget = usable_bytes(protocol, need);
    if (need.fixed_bytes > budget || need.set_bytes > budget - need.fixed_bytes) return 0;
    const std::uint64_t set_bytes = std::max<std::uint64_t>(need.set_bytes, 1);
    const std::uint64_t wanted = caches_rotated * need.l2_bytes / set_bytes + 1;
    const std::uint64_t fitting = (budget - need.fixed_bytes) / set_bytes;
    return static_cast<int>(std::clamp<std::uint64_t>(std::min(wanted, fitting), 1, most_sets));
}

/// Which trials can run now.
struct Ready {
    std::set<std::size_t> trials = {};
    bool reference = false;
};

/// Trials to be compiled that are not ready: those without a verdict, and the yardstick, which leads.
std::vector<std::size_t> wanted(const std::vector<Trial>& trials, const Ready& ready) {
    // Those of a runoff come when all have a verdict: until then time is for those without.
    const std::vector<std::size_t> racing = all_decided(trials) ? undecided(trials) : std::vector<std::size_t>{};
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < trials.size(); ++i) {
        const bool races = std::find(racing.begin(), racing.end(), i) != racing.end();
        if ((takes_part(trials, i) || races) && ready.trials.count(i) == 0) found.push_back(i);
    }
    return found;
}

/// Puts what compiling showed into its trial.
void note(const Compilation& compilation, std::size_t parts, std::vector<Trial>& trials, std::size_t index) {
    Trial& trial = trials[index];
    trial.registers = std::max(trial.registers, compilation.registers);
    trial.spill_bytes = compilation.spill_bytes;
    if (compilation.parts_compiled == parts) trial.compile_seconds = 0;
    trial.compile_seconds += compilation.seconds;
    if (!compilation.refusal.empty()) {
        refuse(trial, compilation.refusal);
    } else if (index > 0 && trial.verdict == Verdict::pending && trial.spill_bytes > 0) {
        // But for the heuristic choice, which is what runs otherwise.
        refuse(trial, fmt::format("spills {} bytes of registers", trial.spill_bytes));
    }
}

/// Compiles what is wanted, within `seconds`.
void compile_wanted(Device& device, Journal& journal, double seconds, util::ThreadPool& threads, Ready& ready) {
    std::vector<Trial>& trials = journal.trials();
    const std::vector<std::size_t> numbers = wanted(trials, ready);
    std::vector<Candidate> candidates;
    for (const std::size_t i : numbers) candidates.push_back(trials[i].candidate);
    const std::size_t parts = device.parts();
    std::set<std::size_t> noted;
    std::size_t done = 0;
    const CompiledCandidates compiled =
        compile_candidates(device, candidates, seconds, threads, [&](std::size_t at, const Compilation& compilation) {
            noted.insert(at);
            note(compilation, parts, trials, numbers[at]);
            const bool is_refused = trials[numbers[at]].verdict == Verdict::refused;
            if (!is_refused) ready.trials.insert(numbers[at]);
            journal.report("compiling", ++done, numbers.size());
            journal.save_now_and_then();
        });
    for (std::size_t at = 0; at < numbers.size(); ++at) {
        if (noted.count(at) == 0) note(compiled.candidates[at], parts, trials, numbers[at]);
    }
    ready.reference = ready.reference || compiled.reference_is_ready;
}

/// What can be compiled within `seconds`.
Ready compile(Device& device, Journal& journal, double seconds, util::ThreadPool& threads) {
    const double begin = device.now();
    std::vector<Trial>& trials = journal.trials();
    Ready ready;
    std::set<std::size_t> yardsticks;
    // The one that follows a yardstick that is refused may have been decided before: it takes part again.
    while (yardstick(trials) < trials.size() && ready.trials.count(yardstick(trials)) == 0 &&
           yardsticks.insert(yardstick(trials)).second) {
        const double left = seconds - (device.now() - begin);
        if (yardsticks.size() > 1 && left <= 0) break;
        compile_wanted(device, journal, left, threads, ready);
    }
    return ready;
}

/// Whether there is something to learn from running what is ready.
bool is_comparable(const std::vector<Trial>& trials, const Ready& ready) {
    if (!ready.reference || ready.trials.count(yardstick(trials)) == 0) return false;
    return ready.trials.size() > 1 || wanted(trials, ready).empty();
}

/// Whether nothing is left to be measured.
bool measure_all(Device& device, const Protocol& protocol, util::ThreadPool& threads, int sets, Journal& journal) {
    std::vector<Trial>& trials = journal.trials();
    const double begin = device.now();
    const double forever = std::numeric_limits<double>::infinity();
    const double seconds = protocol.breadth == Breadth::all ? forever : protocol.seconds;
    const Ready ready = compile(device, journal, compiling_share * seconds, threads);
    if (yardstick(trials) == trials.size()) return all_decided(trials);
    if (!is_comparable(trials, ready)) return false;
    // A compile that ended late takes nothing from the measuring's share.
    const double compiled = device.now();
    const double until = std::max(begin + seconds, compiled + (1 - compiling_share) * seconds);
    device.allocate(sets, journal.seed());
    Race race(device, journal, protocol, {sets, until});
    const double checking = device.now();
    race.take_rounds(check_candidates(device, journal, ready.trials, protocol.candidate_seconds,
                                      checking + checking_share * (until - checking)));
    return all_decided(trials) && race.run_off(ready.trials);
}

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
    const int sets = rotated_sets(protocol, device.memory_need());
    Journal journal(device, tuning, observer);
    lay_out(tuning, space, protocol);
    if (sets == 0) return Outcome::out_of_memory;
    try {
        if (measure_all(device, protocol, threads, sets, journal)) journal.complete();
    } catch (...) {
        journal.save();
        throw;
    }
    journal.save();
    return tuning.complete ? Outcome::complete : Outcome::out_of_time;
}

}  // namespace smlora::tuning
