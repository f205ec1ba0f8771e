// smlora-tune tune: measures the candidates of every operation, and records what it finds.
#include "smlora_tune/command.hpp"
#include "smlora_tune/compile_ahead.hpp"
#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/operand_options.hpp"
#include "smlora_tune/progress.hpp"
#include "smlora_tune/session.hpp"
#include "smlora_tune/shape_options.hpp"
#include "smlora_tune/statistics.hpp"
#include "smlora_tune/table.hpp"
#include "smlora_tune/units.hpp"

#include "engine/engine_impl.hpp"
#include "plan/step_kernels.hpp"
#include "tune/bucket.hpp"
#include "tune/choice.hpp"
#include "tune/distance.hpp"
#include "tune/shard.hpp"
#include "util/environment.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <optional>

namespace smlora::tool {
namespace {

struct TuneCommand {
    CommonOptions common;
    ShapeOptions shape;
    std::string device;
    double budget = 60;
    std::string memory;
    std::string shard;
    std::string skew = "uniform";
    int rounds = tune::Protocol{}.rounds;
    std::optional<std::size_t> candidates;
    bool again = false;
    std::optional<int> compile_ahead;
    bool exhaustive = false;
};

// However slow a candidate is, it has all its samples.
constexpr double exhaustive_candidate_seconds = 30;

constexpr const char* footer =
    R"(Needs a GPU and NVRTC. What is recorded already is not measured again, and what was cut short is gone on with; with
--candidates, candidates that are not in the record yet are measured as well, and with --again everything is.
Of several processes each does its share: --shard, or the rank variables of torchrun, Open MPI, MPICH and SLURM,
by which each also takes a GPU of its own. It fails if a piece of work is left without a measured choice.
With --exhaustive every legal candidate is measured after that, which takes minutes for each piece of work, and the
choice is compared with the best of them; records stay as they are.

Examples:
  smlora-tune tune --model qwen3-30b-a3b --rank 16 --tokens 4096,16384
  smlora-tune tune --model mixtral-8x7b --budget 20 --shard 0/4
  smlora-tune tune --shape 64,2048,2048,16,8 --tokens 4096 --exhaustive)";

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

/// A problem at a number of tokens, and what became of its pieces of work.
struct Case {
    NamedProblem item;
    std::int64_t T = 0;
    std::vector<autotune::TuneResult> results;
    std::vector<autotune::Comparison> comparisons;
};

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

/// It has candidates, and more seconds or memory would bring it a choice by samples.
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

nlohmann::ordered_json to_json(const Case& done) {
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

void print_text(const Case& done, const std::string& skew) {
    fmt::print("{}\n", case_text(done.item, done.T, done.results.size()));
    if (done.results.empty()) {
        fmt::print("\n");
        return;
    }
    Table table({{"work"}, {"outcome"}, {"choice"}, {"median", Align::right}, {"why"}});
    for (const autotune::TuneResult& result : done.results) {
        const Winner winner = winner_of(result.work);
        table.add({result.work.slot, outcome_text(result, skew), winner.name,
                   winner.seconds > 0 ? seconds_text(winner.seconds) : "-",
                   result.why.empty() ? winner.reason : result.why});
    }
    fmt::print("{}\n", table.text());
    if (done.comparisons.empty()) return;
    Table all({{"work"},
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
    fmt::print("{}\n", all.text());
}

/// Over all pieces of work: the worst, and the geometric mean.
void print_distances(const std::vector<Case>& cases) {
    double worst = 1;
    double logarithms = 0;
    int works = 0;
    for (const Case& done : cases) {
        for (const autotune::Comparison& comparison : done.comparisons) {
            const auto found = tune::distance(comparison.all, comparison.work.choice);
            if (!found) continue;
            worst = std::max(worst, found->factor);
            logarithms += std::log(found->factor);
            ++works;
        }
    }
    if (works == 0) return;
    fmt::print(
        "{} choices compared with every legal candidate: {:.1f} % behind the best at most, {:.1f} % in the mean\n",
        works, 100 * (worst - 1), 100 * std::expm1(logarithms / works));
}

/// Whoever goes on to a job shall know of what would run untuned.
ExitCode verdict_on(const std::vector<Case>& cases, double budget) {
    std::size_t works = 0;
    std::ptrdiff_t lacking = 0;
    for (const Case& done : cases) {
        works += done.results.size();
        lacking += std::count_if(done.results.begin(), done.results.end(), lacks_choice);
    }
    if (lacking == 0) return ExitCode::ok;
    fmt::print(stderr,
               "smlora-tune: {} of {} pieces of work have no measured choice: what is out of memory needs more "
               "--memory, the others a --budget above {:g}\n",
               lacking, works, budget);
    return ExitCode::failure;
}

/// The shard of this process, and the GPU that it takes where --device does not say.
struct Place {
    tune::Shard shard;
    int local = 0;
    int local_count = 1;
};

std::optional<tune::Rank> rank_of_launcher() {
    try {
        return tune::rank_from_environment();
    } catch (const Error& error) {
        throw UsageError(error.what());
    }
}

Place place_of(const TuneCommand& command) {
    const auto rank = rank_of_launcher();
    Place place;
    if (rank) place = {rank->shard, rank->local, rank->local_count};
    if (!command.shard.empty()) {
        try {
            place.shard = tune::parse_shard(command.shard);
        } catch (const Error& error) {
            throw UsageError(fmt::format("--{}", error.what()));
        }
    }
    if (place.shard.count > 1) {
        fmt::print(stderr, "shard     {}/{}{}\n", place.shard.index, place.shard.count,
                   command.shard.empty() ? ", by the variables of " + rank->launcher : "");
    }
    return place;
}

int ordinal_of(const TuneCommand& command, const Place& place) {
    if (command.device.empty()) {
        const int count = gpu::device_count();
        return count > 0 ? place.local % count : 0;
    }
    const DeviceChoice device = parse_device(command.device);
    if (device.backend == Backend::cpu) throw UsageError("--device: expected cuda or cuda:ORDINAL, got 'cpu'");
    return device.ordinal;
}

/// Half of the cores: the thread that measures shall never wait for one. Those of a node share its cores.
int threads_ahead(const TuneCommand& command, const Place& place) {
    return command.compile_ahead.value_or(util::available_cores() / 2 / place.local_count);
}

std::vector<std::int64_t> tokens_of(const TuneCommand& command) {
    const std::vector<std::int64_t>& tokens = command.shape.tokens;
    if (tokens.empty()) return {1024, 2048, 4096, 8192, 16384, 32768, 65536};
    if (*std::min_element(tokens.begin(), tokens.end()) < 1) {
        throw UsageError("--tokens: expected at least 1, got 0: there is nothing to measure");
    }
    return tokens;
}

/// But for the seconds, and for the memory where --memory does not say.
tune::Protocol protocol_of(const TuneCommand& command) {
    tune::Protocol protocol;
    protocol.rounds = command.rounds;
    protocol.candidates = command.candidates.value_or(protocol.candidates);
    if (!command.memory.empty()) {
        protocol.memory_bytes = util::parse_size(command.memory);
        if (protocol.memory_bytes.value_or(0) == 0) {
            throw UsageError(fmt::format("--memory: expected bytes above 0, or such a number with K, M or G, got '{}'",
                                         command.memory));
        }
    }
    return protocol;
}

autotune::Wanted wanted_of(const TuneCommand& command) {
    if (command.again) return autotune::Wanted::new_tuning;
    return command.candidates ? autotune::Wanted::every_verdict : autotune::Wanted::own_tuning;
}

/// Tunes one case after the other, and shows how far it is.
class CaseTuner {
 public:
    CaseTuner(const TuneCommand& command, Session& session, const tune::Protocol& protocol, std::size_t works,
              ProgressLine& line)
        : command_(command), session_(session), protocol_(protocol), works_(works), line_(line) {}

    void tune(Case& done) {
        const std::vector<plan::Request> requests = plan::step_requests(done.item.problem, done.T);
        const auto start = std::chrono::steady_clock::now();
        for (std::size_t i = 0; i < requests.size(); ++i) {
            const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
            const auto left = static_cast<double>(requests.size() - i);
            protocol_.seconds = std::max(0.0, command_.budget - spent.count()) / left;
            for (autotune::TuneResult& result :
                 tuner().tune(done.item.problem, requests[i], session_.facts(), done.T, skews().at(command_.skew),
                              protocol_, wanted_of(command_), shown(done))) {
                done.results.push_back(std::move(result));
            }
            ++done_;
        }
    }

    void compare(Case& done) {
        tune::Protocol thorough = protocol_;
        thorough.candidate_seconds = exhaustive_candidate_seconds;
        for (const plan::Request& request : plan::step_requests(done.item.problem, done.T)) {
            for (autotune::Comparison& comparison :
                 tuner().compare(done.item.problem, request, session_.facts(), done.T, skews().at(command_.skew),
                                 thorough, shown(done))) {
                done.comparisons.push_back(std::move(comparison));
            }
            ++done_;
        }
    }

 private:
    [[nodiscard]] autotune::Tuner& tuner() const { return autotune::tuner_of(session_.engine()); }

    [[nodiscard]] std::function<void(const tune::Progress&)> shown(const Case& done) {
        return [this, &done](const tune::Progress& progress) {
            // The best so far before what is likely to be cut off at the end of the line.
            const std::string best =
                progress.best.empty() ? ""
                                      : fmt::format(", best {} {}", seconds_text(progress.best_seconds), progress.best);
            line_.update(done_, works_,
                         fmt::format("{} {} {}/{}{}, {} tokens, {}", progress.phase, progress.slot, progress.done,
                                     progress.total, best, done.T, done.item.name));
        };
    }

    const TuneCommand& command_;
    Session& session_;
    tune::Protocol protocol_;
    const std::size_t works_;
    std::size_t done_ = 0;  // of works_
    ProgressLine& line_;
};

void print_document(const std::vector<Case>& cases, const TuneCommand& command, const Session& session,
                    const Place& place, const std::vector<double>& compiled, std::size_t compiled_ahead) {
    nlohmann::ordered_json document = json_document("tune");
    document["device"] = session.device_name();
    document["routing"] = command.skew;
    document["shard"] = fmt::format("{}/{}", place.shard.index, place.shard.count);
    document["compiled"] = compiled.size();
    document["compiled_ahead"] = compiled_ahead;
    document["compile_seconds"] = compiled.empty() ? 0 : median(compiled);
    document["cases"] = nlohmann::ordered_json::array();
    for (const Case& done : cases) document["cases"].push_back(to_json(done));
    print_json(document);
}

ExitCode run_tune(const TuneCommand& command) {
    const std::vector<NamedProblem> problems = resolve(command.shape, Backend::cuda);
    const std::vector<std::int64_t> tokens = tokens_of(command);
    tune::Protocol protocol = protocol_of(command);
    const Place place = place_of(command);

    ProgressLine line(stderr);
    EngineOptions options = engine_options(command.common, Backend::cuda, ordinal_of(command, place), 0,
                                           [&line](const std::string& text) { line.print(text); });
    options.tuning = TuningPolicy::record_only;
    Session session(std::move(options));
    // Nobody else needs the device's memory while this runs.
    if (!protocol.memory_bytes) protocol.memory_bytes = session.free_bytes() / 2;
    fmt::print(stderr, "device    {}\nrouting   {}\n", session.device_name(), command.skew);

    std::vector<Case> cases;
    std::vector<TunedRequest> requests;
    for (const NamedProblem& item : problems) {
        for (const std::int64_t T : tokens) {
            const tune::RecordName record{session.facts().name, to_string(item.problem), tune::bucket_of(T)};
            // By the record: whoever has a part of it has all of it.
            if (!place.shard.owns(record.key())) continue;
            cases.push_back({item, T, {}, {}});
            for (const plan::Request& request : plan::step_requests(item.problem, T)) {
                requests.push_back({item.problem, request});
            }
        }
    }
    CaseTuner tuner(command, session, protocol, (command.exhaustive ? 2 : 1) * requests.size(), line);
    // The first is compiled at once, by all threads.
    if (!requests.empty()) requests.erase(requests.begin());
    CompileAhead ahead(session.engine(), session.facts(), protocol, wanted_of(command), std::move(requests),
                       threads_ahead(command, place));
    for (Case& done : cases) {
        tuner.tune(done);
        if (command.exhaustive) tuner.compare(done);
        line.finish();
        if (!command.common.json) print_text(done, command.skew);
    }
    const std::size_t compiled_ahead = ahead.finish();
    const std::vector<double> compiled = session.engine().impl().kernels.compile_seconds();
    if (!compiled.empty()) {
        fmt::print(stderr, "compiled  {} kernels, {} of them ahead, {} in the median\n", compiled.size(),
                   compiled_ahead, seconds_text(median(compiled)));
    }
    if (command.common.json) {
        print_document(cases, command, session, place, compiled, compiled_ahead);
    } else if (cases.empty()) {
        fmt::print("Nothing is in this shard.\n");
    } else {
        print_distances(cases);
    }
    return verdict_on(cases, command.budget);
}

}  // namespace

void add_tune(CLI::App& app, Run& run) {
    auto command = std::make_shared<TuneCommand>();
    CLI::App* sub = app.add_subcommand("tune", "Measure the candidates of every operation and record the choice");
    sub->footer(footer);
    add_shape_options(*sub, command->shape, "1024 to 65536 in powers of two");
    sub->add_option("--device", command->device, "cuda or cuda:ORDINAL [the one of the local rank, else the first]")
        ->type_name("DEVICE");
    sub->add_option("--budget", command->budget, "Seconds for one problem and number of tokens")
        ->type_name("SECONDS")
        ->check(positive_number())
        ->capture_default_str();
    sub->add_option("--memory", command->memory,
                    "Device memory for operands, in bytes or with K, M, G [half of what is free]")
        ->type_name("SIZE");
    sub->add_option("--shard", command->shard, "The share of this process [the launcher's rank variables]")
        ->type_name("INDEX/COUNT");
    sub->add_option("--skew", command->skew, "How tokens choose experts: uniform, zipf, or all of them one")
        ->type_name("SKEW")
        ->check(CLI::IsMember(skews()).description(""))
        ->capture_default_str();
    sub->add_option("--candidates", command->candidates,
                    fmt::format("Candidates that are tried for each piece of work [{}]", tune::Protocol{}.candidates))
        ->type_name("N")
        ->check(whole_number(1, std::numeric_limits<int>::max()));
    sub->add_option("--rounds", command->rounds,
                    "Samples of each candidate; of those that are the fastest but for noise up to three times as many")
        ->type_name("N")
        ->check(whole_number(1, std::numeric_limits<int>::max()))
        ->capture_default_str();
    sub->add_option("--compile-ahead", command->compile_ahead,
                    "Threads that compile what comes next while the GPU measures; 0: none [half of the cores]")
        ->type_name("N")
        ->check(whole_number(0, std::numeric_limits<int>::max()));
    sub->add_flag("--again", command->again, "Measure what is recorded already, too, and record it anew");
    sub->add_flag("--exhaustive", command->exhaustive,
                  "Measure every legal candidate as well, and say how far the choice is from the best");
    add_common_options(*sub, command->common);
    sub->callback([command, &run] { run = [command] { return run_tune(*command); }; });
}

}  // namespace smlora::tool
