#include "smlora_tune/tune_report.hpp"

#include "smlora_tune/output.hpp"
#include "smlora_tune/table.hpp"
#include "smlora_tune/units.hpp"

#include "tune/choice.hpp"
#include "tune/distance.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace smlora::tool {
namespace {

std::string_view name(autotune::TuneOutcome outcome) {
    switch (outcome) {
        case autotune::TuneOutcome::known:
            return "recorded";
        case autotune::TuneOutcome::complete:
            return "tuned";
        case autotune::TuneOutcome::out_of_time:
            return "out of time";
        case autotune::TuneOutcome::out_of_memory:
            return "out of memory";
        case autotune::TuneOutcome::elsewhere:
            return "tuned elsewhere";
        case autotune::TuneOutcome::no_choice:
            return "one candidate";
    }
    return "";
}

/// The rows that it was measured on; empty when it was not.
std::string routing_of(const autotune::TuneResult& result) {
    return result.work.tuning ? result.work.tuning->workload.routing : "";
}

bool is_complete(const autotune::TuneResult& result) { return result.work.tuning && result.work.tuning->complete; }

/// With what is unusual about it.
std::string outcome_text(const autotune::TuneResult& result, const std::string& skew) {
    std::string text(name(result.outcome));
    if (result.outcome == autotune::TuneOutcome::elsewhere && !is_complete(result)) text += " in part";
    if (const std::string routing = routing_of(result); !routing.empty() && routing != skew) {
        text += ", routing " + routing;
    }
    return text;
}

std::int64_t refused(const std::vector<tune::Trial>& trials) {
    return std::count_if(trials.begin(), trials.end(),
                         [](const tune::Trial& trial) { return trial.verdict == tune::Verdict::refused; });
}

/// The winner's name and time; the time is 0 when nothing was measured.
struct Winner {
    std::string name;
    double seconds = 0;
    std::string reason;
};

Winner winner_of(const autotune::KnownWork& work) {
    if (!work.tuning) return {};
    const tune::Judgement judgement = tune::judge(work.tuning->trials);
    if (!judgement.winner) return {"", 0, judgement.reason};
    const tune::Estimate estimate = tune::estimates(work.tuning->trials)[*judgement.winner];
    return {work.tuning->trials[*judgement.winner].candidate.name, estimate.samples > 0 ? estimate.seconds : 0,
            judgement.reason};
}

/// There are candidates, and with more seconds or memory they would be measured.
bool lacks_choice(const autotune::TuneResult& result) {
    return result.outcome != autotune::TuneOutcome::no_choice && !is_complete(result) &&
           winner_of(result.work).seconds == 0;
}

nlohmann::ordered_json to_json(const autotune::Comparison& comparison) {
    const std::vector<tune::Trial>& trials = comparison.all.trials;
    nlohmann::ordered_json json{{"slot", comparison.work.slot},
                                {"candidates", trials.size()},
                                {"refused", refused(trials)},
                                {"seconds", comparison.all.seconds}};
    if (const auto found = tune::distance(comparison.all, comparison.work.choice)) {
        const std::vector<tune::Estimate> times = tune::estimates(trials);
        json["choice"] = trials[found->chosen].candidate.name;
        json["choice_seconds"] = times[found->chosen].seconds;
        json["best"] = trials[found->best].candidate.name;
        json["best_seconds"] = times[found->best].seconds;
        json["factor"] = found->factor;
        json["noise"] = found->noise;
    }
    return json;
}

}  // namespace

nlohmann::ordered_json to_json(const TunedCase& done) {
    nlohmann::ordered_json json{
        {"name", done.item.name}, {"problem", to_string(done.item.problem)}, {"tokens", done.T}};
    json["works"] = nlohmann::ordered_json::array();
    for (const autotune::TuneResult& result : done.results) {
        const Winner winner = winner_of(result.work);
        json["works"].push_back({{"slot", result.work.slot},
                                 {"outcome", name(result.outcome)},
                                 {"complete", is_complete(result)},
                                 {"routing", routing_of(result)},
                                 {"choice", winner.name},
                                 {"reason", result.why.empty() ? winner.reason : result.why},
                                 {"median_seconds", winner.seconds},
                                 {"seconds", result.work.tuning ? result.work.tuning->seconds : 0},
                                 {"record", result.work.name.key()}});
    }
    for (const autotune::Comparison& comparison : done.comparisons) json["exhaustive"].push_back(to_json(comparison));
    return json;
}

void print_text(const TunedCase& done, const std::string& skew) {
    print_results("{}\n", case_text(done.item, done.T, done.results.size()));
    if (done.results.empty()) {
        print_results("\n");
        return;
    }
    Table table({{"kernel"}, {"outcome"}, {"choice"}, {"median", Align::right}, {"why"}});
    for (const autotune::TuneResult& result : done.results) {
        const Winner winner = winner_of(result.work);
        table.add({result.work.slot, outcome_text(result, skew), winner.name,
                   winner.seconds > 0 ? seconds_text(winner.seconds) : "-",
                   result.why.empty() ? winner.reason : result.why});
    }
    print_results("{}\n", table.text());
    if (done.comparisons.empty()) return;
    Table all({{"kernel"},
               {"measured", Align::right},
               {"refused", Align::right},
               {"choice"},
               {"median", Align::right},
               {"best of all"},
               {"median", Align::right},
               {"behind", Align::right},
               {"noise", Align::right}});
    for (const autotune::Comparison& comparison : done.comparisons) {
        const std::vector<tune::Trial>& trials = comparison.all.trials;
        const auto found = tune::distance(comparison.all, comparison.work.choice);
        const std::string measured = std::to_string(static_cast<std::int64_t>(trials.size()) - refused(trials));
        if (!found) {
            all.add({comparison.work.slot, measured, std::to_string(refused(trials)), "-", "-", "-", "-", "-", "-"});
            continue;
        }
        const std::vector<tune::Estimate> times = tune::estimates(trials);
        all.add({comparison.work.slot, measured, std::to_string(refused(trials)), trials[found->chosen].candidate.name,
                 seconds_text(times[found->chosen].seconds), trials[found->best].candidate.name,
                 seconds_text(times[found->best].seconds), fmt::format("{:.1f} %", 100 * (found->factor - 1)),
                 fmt::format("{:.1f} %", 100 * found->noise)});
    }
    print_results("{}\n", all.text());
}

void print_distances(const std::vector<TunedCase>& cases) {
    double worst = 1;
    double logarithms = 0;
    int works = 0;
    for (const TunedCase& done : cases) {
        for (const autotune::Comparison& comparison : done.comparisons) {
            const auto found = tune::distance(comparison.all, comparison.work.choice);
            if (!found) continue;
            worst = std::max(worst, found->factor);
            logarithms += std::log(found->factor);
            ++works;
        }
    }
    if (works == 0) return;
    print_results(
        "{} choices were compared with every legal candidate: they take {:.1f} % longer than the best at most, {:.1f} "
        "% on "
        "average\n",
        works, 100 * (worst - 1), 100 * std::expm1(logarithms / works));
}

ExitCode verdict_on(const std::vector<TunedCase>& cases, double budget) {
    std::size_t works = 0;
    std::ptrdiff_t lacking = 0;
    for (const TunedCase& done : cases) {
        works += done.results.size();
        lacking += std::count_if(done.results.begin(), done.results.end(), lacks_choice);
    }
    if (lacking == 0) return ExitCode::ok;
    print_remark(
        "smlora-tune: {} of {} kernels were not tuned; raise --memory for those marked \"{}\", --budget ({:g} s) for "
        "the "
        "rest\n",
        lacking, works, name(autotune::TuneOutcome::out_of_memory), budget);
    return ExitCode::failure;
}

}  // namespace smlora::tool
