#include "smlora_tune/tune_report.hpp"

#include "smlora_tune/output.hpp"
#include "smlora_tune/table.hpp"
#include "smlora_tune/units.hpp"

#include "tuning/choice.hpp"
#include "tuning/distance.hpp"
#include "util/counted.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace smlora::tool {
namespace {

/// With what is unusual about it.
std::string outcome_text(const TunedWork& work, const std::string& skew) {
    std::string text(name(work.outcome));
    if (work.outcome == TuneOutcome::elsewhere && !work.complete) text += " in part";
    if (!work.routing.empty() && work.routing != skew) text += ", routing " + work.routing;
    return text;
}

std::int64_t refused(const std::vector<tuning::Trial>& trials) {
    return std::count_if(trials.begin(), trials.end(),
                         [](const tuning::Trial& trial) { return trial.verdict == tuning::Verdict::refused; });
}

nlohmann::ordered_json to_json(const autotune::Comparison& comparison) {
    const std::vector<tuning::Trial>& trials = comparison.all.trials;
    nlohmann::ordered_json json{{"slot", comparison.work.slot},
                                {"candidates", trials.size()},
                                {"refused", refused(trials)},
                                {"seconds", comparison.all.seconds}};
    if (const auto found = tuning::distance(comparison.all, comparison.work.choice())) {
        const std::vector<tuning::Estimate> times = tuning::estimates(trials);
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
    nlohmann::ordered_json json = json_of(done.item);
    json["tokens"] = done.T;
    json["works"] = nlohmann::ordered_json::array();
    for (const TunedWork& work : done.works) {
        json["works"].push_back({{"slot", work.work},
                                 {"outcome", name(work.outcome)},
                                 {"complete", work.complete},
                                 {"routing", work.routing},
                                 {"choice", work.choice},
                                 {"reason", work.reason},
                                 {"median_seconds", work.median_seconds},
                                 {"seconds", work.seconds},
                                 {"record", work.record}});
    }
    for (const autotune::Comparison& comparison : done.comparisons) json["exhaustive"].push_back(to_json(comparison));
    return json;
}

void print_text(const TunedCase& done, const std::string& skew) {
    print_results("{}\n", case_text(done.item, done.T, done.works.size()));
    if (done.works.empty()) {
        print_results("\n");
        return;
    }
    Table table({{"kernel"}, {"outcome"}, {"choice"}, {"median", Align::right}, {"why"}});
    for (const TunedWork& work : done.works) {
        table.add({work.work, outcome_text(work, skew), work.choice,
                   work.median_seconds > 0 ? seconds_text(work.median_seconds) : "-", work.reason});
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
        const std::vector<tuning::Trial>& trials = comparison.all.trials;
        const auto found = tuning::distance(comparison.all, comparison.work.choice());
        const std::string measured = std::to_string(static_cast<std::int64_t>(trials.size()) - refused(trials));
        if (!found) {
            all.add({comparison.work.slot, measured, std::to_string(refused(trials)), "-", "-", "-", "-", "-", "-"});
            continue;
        }
        const std::vector<tuning::Estimate> times = tuning::estimates(trials);
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
            const auto found = tuning::distance(comparison.all, comparison.work.choice());
            if (!found) continue;
            worst = std::max(worst, found->factor);
            logarithms += std::log(found->factor);
            ++works;
        }
    }
    if (works == 0) return;
    print_results(
        "{} compared with every legal candidate: {:.1f} % longer than the best at most, {:.1f} % on average\n",
        util::counted(works, "choice"), 100 * (worst - 1), 100 * std::expm1(logarithms / works));
}

ExitCode verdict_on(const std::vector<TunedCase>& cases, double budget) {
    std::size_t works = 0;
    std::ptrdiff_t lacking = 0;
    for (const TunedCase& done : cases) {
        works += done.works.size();
        lacking += std::count_if(done.works.begin(), done.works.end(),
                                 [](const TunedWork& work) { return work.lacks_choice(); });
    }
    if (lacking == 0) return ExitCode::ok;
    print_remark(
        "smlora-tune: {} of {} not tuned; raise --memory for those marked \"{}\", --budget ({:g} s) for the rest\n",
        lacking, util::counted(works, "kernel"), name(TuneOutcome::out_of_memory), budget);
    return ExitCode::failure;
}

}  // namespace smlora::tool
