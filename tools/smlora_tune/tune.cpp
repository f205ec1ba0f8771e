// smlora-tune tune: measures the candidates of every operation, and records what it finds.
#include "smlora_tune/command.hpp"
#include "smlora_tune/compile_ahead.hpp"
#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/operand_options.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/progress.hpp"
#include "smlora_tune/session.hpp"
#include "smlora_tune/shape_options.hpp"
#include "smlora_tune/statistics.hpp"
#include "smlora_tune/tune_report.hpp"
#include "smlora_tune/units.hpp"

#include "engine/engine_impl.hpp"
#include "plan/request.hpp"
#include "plan/step_kernels.hpp"
#include "tuning/bucket.hpp"
#include "tuning/shard.hpp"
#include "util/counted.hpp"
#include "util/environment.hpp"

#include <smlora/error.hpp>
#include <smlora/tune.hpp>

#include <fmt/format.h>

#include <algorithm>
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
    int rounds = tuning::Protocol{}.rounds;
    std::optional<std::size_t> candidates;
    bool again = false;
    std::optional<int> compile_ahead;
    bool exhaustive = false;
};

// Long enough for the slowest candidate to have all its samples.
constexpr double exhaustive_candidate_seconds = 30;

constexpr const char* tune_footer =
    R"(Needs a GPU and NVRTC. What is recorded is not measured again, and interrupted runs resume where they stopped.
--candidates adds the candidates that the record does not have yet; --again measures everything anew.
Several processes can split the work: by --shard, or by the rank variables of torchrun, Open MPI, MPICH and SLURM, by
which each also takes a GPU of its own. The exit code is 1 if a kernel is left without a measured choice.
--exhaustive then measures every legal candidate too, which takes minutes per kernel, and compares the choice with the
best of them; it changes no records.
With SMLORA_DETERMINISM=batch it measures for the one number of tokens that kernels are chosen for then, whatever
--tokens says.
Quantised weights are unpacked and multiplied as plain ones: what is tuned and recorded is the same with and without
--weights, but for the layout of W. Of arranged ones it measures as well how products take them.

Examples:
  smlora-tune tune --model qwen3-30b-a3b --rank 16 --tokens 4096,16384
  smlora-tune tune --model mixtral-8x7b --budget 20 --shard 0/4
  smlora-tune tune --shape 64,2048,2048,16,8 --tokens 4096 --exhaustive)";

/// The shard of this process, and the GPU that it takes where --device does not say.
struct Place {
    tuning::Shard shard;
    int local = 0;
    int local_count = 1;
};

std::optional<tuning::Rank> rank_of_launcher() {
    try {
        return tuning::rank_from_environment();
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
            place.shard = tuning::parse_shard(command.shard);
        } catch (const Error& error) {
            throw UsageError(fmt::format("--{}", error.what()));
        }
    }
    if (place.shard.count > 1) {
        print_remark("shard     {}/{}{}\n", place.shard.index, place.shard.count,
                     command.shard.empty() ? ", from the variables of " + rank->launcher : "");
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
        throw UsageError("--tokens: expected at least 1, got 0");
    }
    return tokens;
}

/// But for the seconds, and for the memory where --memory does not say.
tuning::Protocol protocol_of(const TuneCommand& command) {
    tuning::Protocol protocol;
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

TuneOptions options_of(const TuneCommand& command, const tuning::Protocol& protocol) {
    TuneOptions options;
    options.seconds = command.budget;
    options.memory_bytes = protocol.memory_bytes;
    if (command.candidates) options.candidates = static_cast<std::int32_t>(*command.candidates);
    options.rounds = command.rounds;
    options.skew = static_cast<TuneSkew>(skews().at(command.skew));
    options.again = command.again;
    return options;
}

/// Tunes one case after the other, and shows how far it is.
class CaseTuner {
 public:
    /// `parts`: calls of tune() and compare() to come.
    CaseTuner(const TuneCommand& command, Session& session, const tuning::Protocol& protocol, std::size_t parts,
              ProgressLine& line)
        : session_(session),
          protocol_(protocol),
          options_(options_of(command, protocol)),
          skew_(skews().at(command.skew)),
          parts_(parts),
          line_(line) {}

    void tune(TunedCase& done) {
        options_.tokens = {done.T};
        options_.progress = [&](const TuneProgress& p) {
            show(done, {p.work, p.phase, p.done, p.total, p.best, p.best_seconds});
            return true;
        };
        done.works = smlora::tune(session_.engine(), done.item.problem, options_).works;
        ++done_;
    }

    void compare(TunedCase& done) {
        tuning::Protocol thorough = protocol_;
        thorough.candidate_seconds = exhaustive_candidate_seconds;
        const autotune::MeasuredRows rows{.T = done.T, .skew = skew_};
        const Problem& problem = done.item.problem;
        const std::uint64_t limit = session_.engine().impl().unpack_limit;
        for (const plan::Request& request : plan::step_requests(problem, done.T, limit)) {
            for (autotune::Comparison& comparison : autotune::tuner_of(session_.engine())
                                                        .compare(problem, request, session_.facts(), rows, thorough,
                                                                 [&](const tuning::Progress& p) { show(done, p); })) {
                done.comparisons.push_back(std::move(comparison));
            }
        }
        ++done_;
    }

 private:
    void show(const TunedCase& done, const tuning::Progress& progress) {
        // The best so far before what is likely to be cut off at the end of the line.
        const std::string best = progress.best.empty()
                                     ? ""
                                     : fmt::format(", best {} {}", seconds_text(progress.best_seconds), progress.best);
        line_.update(done_, parts_,
                     fmt::format("{} {} {}/{}{}, {}, {}", progress.phase, progress.slot, progress.done, progress.total,
                                 best, util::counted(done.T, "token"), done.item.name));
    }

    Session& session_;
    const tuning::Protocol protocol_;
    TuneOptions options_;
    const tuning::Skew skew_;
    const std::size_t parts_;
    std::size_t done_ = 0;  // of parts_
    ProgressLine& line_;
};

void print_document(const std::vector<TunedCase>& cases, const TuneCommand& command, const Session& session,
                    const Place& place, const std::vector<double>& compiled, std::size_t compiled_ahead) {
    nlohmann::ordered_json document = json_document("tune");
    document["device"] = session.device_name();
    document["routing"] = command.skew;
    document["shard"] = fmt::format("{}/{}", place.shard.index, place.shard.count);
    document["compiled"] = compiled.size();
    document["compiled_ahead"] = compiled_ahead;
    document["compile_seconds"] = compiled.empty() ? 0 : median(compiled);
    document["cases"] = nlohmann::ordered_json::array();
    for (const TunedCase& done : cases) document["cases"].push_back(to_json(done));
    print_json(document);
}

ExitCode run_tune(const TuneCommand& command) {
    const std::vector<NamedProblem> problems = resolve(command.shape, Backend::cuda);
    std::vector<std::int64_t> tokens = tokens_of(command);
    tuning::Protocol protocol = protocol_of(command);
    const Place place = place_of(command);

    ProgressLine line(stderr);
    EngineOptions options = engine_options(command.common, Backend::cuda, ordinal_of(command, place), 0,
                                           [&line](const std::string& text) { line.print(text); });
    options.tuning = TuningPolicy::record_only;
    Session session(std::move(options));
    // Nothing else should need the device's memory while this runs.
    if (!protocol.memory_bytes) protocol.memory_bytes = session.free_bytes() / 2;
    print_remark("device    {}\nrouting   {}\n", session.device_name(), command.skew);

    tokens = choice_tokens(session.engine(), std::move(tokens));
    std::vector<TunedCase> cases;
    std::vector<TunedRequest> requests;
    for (const NamedProblem& item : problems) {
        // What is measured beside that is recorded of plain weights, too.
        const Problem recorded = item.problem.weights.arranged ? item.problem : plan::with_plain_weights(item.problem);
        if (!(recorded == item.problem)) {
            print_remark("{}: what is tuned and recorded are the products of plain weights, which unpacked ones use\n",
                         title_of(item));
        }
        for (const std::int64_t T : tokens) {
            const tuning::RecordName record{session.facts().name, to_string(recorded), tuning::bucket_of(T)};
            // By the record: the shard that has a part of it has all of it.
            if (!place.shard.owns(record.key())) continue;
            cases.push_back({item, T, {}, {}});
            const std::uint64_t limit = session.engine().impl().unpack_limit;
            for (const plan::Request& request : plan::step_requests(item.problem, T, limit)) {
                requests.push_back({item.problem, request});
            }
        }
    }
    CaseTuner tuner(command, session, protocol, (command.exhaustive ? 2 : 1) * cases.size(), line);
    // The first is compiled at once, by all threads.
    if (!requests.empty()) requests.erase(requests.begin());
    CompileAhead ahead(session.engine(), session.facts(), protocol, wanted_of(command), std::move(requests),
                       threads_ahead(command, place));
    for (TunedCase& done : cases) {
        tuner.tune(done);
        if (command.exhaustive) tuner.compare(done);
        line.finish();
        if (!command.common.json) print_text(done, command.skew);
    }
    const std::size_t compiled_ahead = ahead.finish();
    const std::vector<double> compiled = session.engine().impl().kernels.compile_seconds();
    if (!compiled.empty()) {
        print_remark("compiled  {}, {} of them ahead of need, median {} each\n",
                     util::counted(compiled.size(), "kernel"), compiled_ahead, seconds_text(median(compiled)));
    }
    if (command.common.json) {
        print_document(cases, command, session, place, compiled, compiled_ahead);
    } else if (cases.empty()) {
        print_results("This shard is empty.\n");
    } else {
        print_distances(cases);
    }
    return verdict_on(cases, command.budget);
}

}  // namespace

void add_tune(CLI::App& app, Run& run) {
    auto command = std::make_shared<TuneCommand>();
    CLI::App* sub = app.add_subcommand("tune", "Measure the candidates for every kernel and record the fastest");
    sub->footer(tune_footer);
    add_shape_options(*sub, command->shape, "1024 to 65536 in powers of two");
    sub->add_option("--device", command->device,
                    "GPU to tune on: cuda or cuda:ORDINAL [that of the local rank, else the first]")
        ->type_name("DEVICE");
    sub->add_option("--budget", command->budget, "Seconds per problem and number of tokens")
        ->type_name("SECONDS")
        ->check(positive_number())
        ->capture_default_str();
    sub->add_option("--memory", command->memory,
                    "Device memory for operands, in bytes or with K, M, G [half of what is free]")
        ->type_name("SIZE");
    sub->add_option("--shard", command->shard, "Share of this process [from the launcher's rank variables]")
        ->type_name("INDEX/COUNT");
    sub->add_option("--skew", command->skew, "How tokens choose experts: uniform, zipf, or one for all")
        ->type_name("SKEW")
        ->check(CLI::IsMember(skews()).description(""))
        ->capture_default_str();
    sub->add_option("--candidates", command->candidates,
                    fmt::format("Candidates to try for each kernel [{}]", tuning::Protocol{}.candidates))
        ->type_name("N")
        ->check(whole_number(1, std::numeric_limits<int>::max()));
    sub->add_option("--rounds", command->rounds,
                    "Samples of each candidate; statistical ties for the fastest get up to three times as many")
        ->type_name("N")
        ->check(whole_number(1, std::numeric_limits<int>::max()))
        ->capture_default_str();
    sub->add_option("--compile-ahead", command->compile_ahead,
                    "Threads that compile ahead while the GPU measures; 0: none [half of the cores]")
        ->type_name("N")
        ->check(whole_number(0, std::numeric_limits<int>::max()));
    sub->add_flag("--again", command->again, "Measure everything anew, whatever is recorded");
    sub->add_flag("--exhaustive", command->exhaustive,
                  "Measure every legal candidate too, and print how far the choice is from the best");
    add_common_options(*sub, command->common);
    sub->callback([command, &run] { run = [command] { return run_tune(*command); }; });
}

}  // namespace smlora::tool
