// smlora-tune explain: what can be used for each piece of work, what is used, and why.
#include "autotune/tuner.hpp"
#include "smlora_tune/command.hpp"
#include "smlora_tune/floor.hpp"
#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/shape_options.hpp"
#include "smlora_tune/table.hpp"
#include "smlora_tune/terminal.hpp"
#include "smlora_tune/units.hpp"

#include "engine/engine_impl.hpp"
#include "gpu/device.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"
#include "tune/bucket.hpp"
#include "tune/choice.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

namespace smlora::tool {
namespace {

struct ExplainCommand {
    CommonOptions common;
    ShapeOptions shape;
    std::string arch;
    std::string gpu;
    bool all = false;
    double ceiling_tflops = 0;
    double ceiling_gbs = 0;
};

constexpr const char* footer =
    R"(Needs no GPU: without one, predictions are for a typical GPU of --arch, or for the one that --gpu names. Measured
times are those of a record of that GPU.
The floor is max(flop / ceiling, bytes / ceiling) of the piece of work, every input read once and every output written
once; the ceilings are those of a typical GPU unless they are given.

Examples:
  smlora-tune explain --shape 128,2048,1536,16,8 --tokens 2048 --arch sm_90a
  smlora-tune explain --model olmoe --rank 16 --tokens 2048 --gpu "NVIDIA H100 80GB HBM3")";

struct Line {
    tune::Candidate candidate;
    double measured_seconds = 0;  // 0: not measured
    double noise = 0;
    std::string status;  // "used", "lost", "slow", "refused", "not tried", "pending"
    std::string why;
};

struct KernelUse {
    std::string kernel;
    std::int64_t registers = 0;
    std::int64_t spill_bytes = 0;
    std::int64_t shared_bytes = 0;  // static and dynamic
    unsigned threads = 0;
};

struct Explanation {
    autotune::KnownWork work;
    std::string source;  // where the choice is from
    std::string used;
    std::vector<Line> lines;
    std::vector<KernelUse> kernels;
    std::string kernels_error;
    double floor_seconds = 0;
};

/// With an even routing.
Load load_of(const Problem& problem, std::int64_t T) {
    Load load;
    load.tokens = T;
    load.rows = T * problem.top_k;
    load.active_experts = std::min(problem.E, load.rows);
    return load;
}

/// Of what a slot computes; of rank rows by themselves: rows read, adapter read, rank rows written.
double floor_of(const autotune::KnownWork& work, const Problem& problem, std::int64_t T, const Ceilings& ceilings) {
    const Load load = load_of(problem, T);
    switch (work.role) {
        case plan::Role::product:
            return floor_seconds(work.slot == "forward" ? (problem.R > 0 ? Op::forward : Op::base) : Op::dx, problem,
                                 load, ceilings);
        case plan::Role::gradients:
            return floor_seconds(Op::lora_grad, problem, load, ceilings);
        default:
            break;
    }
    const bool xa = work.role == plan::Role::xa;
    const auto width = static_cast<double>(xa ? problem.K : problem.N);
    const auto rows = static_cast<double>(load.rows);
    const auto rank = static_cast<double>(padded_rank(problem));
    const auto read = static_cast<double>((xa ? problem.x_rows : problem.y_rows) == RowOrder::token ? T : load.rows);
    const double bytes = 2 * (read * width + static_cast<double>(load.active_experts) * rank * width + rows * rank);
    return std::max(2 * rows * width * rank / ceilings.flop_per_second, bytes / ceilings.bytes_per_second);
}

/// `unfit`: why what is recorded does not hold here; empty without such a record.
std::string source_of(const autotune::KnownWork& work, const std::string& unfit) {
    if (work.near) {
        const tune::RecordName& from = work.near->name;
        std::string text = fmt::format("recorded for about {} tokens", tune::tokens_of(from.bucket));
        if (from.problem != work.name.problem) text += fmt::format(" of {}, whose records serve here", from.problem);
        if (from.bucket != work.name.bucket) text += ", the nearest that was measured";
        return text;
    }
    if (!work.tuning) {
        return "the heuristic choice: nothing is recorded" + (unfit.empty() ? "" : " that holds here (" + unfit + ")");
    }
    const std::string record =
        fmt::format("{} on {} with {} tokens, routing {}", work.tuning->complete ? "recorded" : "recorded in part",
                    work.tuning->date, work.tuning->workload.tokens, work.tuning->workload.routing);
    if (!work.tuning->choice) {
        return fmt::format("{}: {}, so the heuristic choice is used", record, tune::judge(work.tuning->trials).reason);
    }
    if (!work.choice) return record + ", but that choice is no candidate here: the heuristic choice is used";
    return record;
}

std::vector<Line> lines_of(const autotune::KnownWork& work, const tune::Configuration& used) {
    std::vector<tune::Trial> trials = work.tuning ? work.tuning->trials : std::vector<tune::Trial>{};
    const std::vector<tune::Estimate> times = tune::estimates(trials);
    const tune::Judgement judgement = tune::judge(trials);
    const auto trial_of = [&](const tune::Candidate& candidate) {
        return std::find_if(trials.begin(), trials.end(), [&](const tune::Trial& trial) {
            return trial.candidate.configuration == candidate.configuration;
        });
    };
    const tune::Candidate* chosen = tune::find_legal(work.space, used);
    double winner_seconds = 0;
    if (chosen != nullptr) {
        const auto trial = trial_of(*chosen);
        if (trial != trials.end()) winner_seconds = times[static_cast<std::size_t>(trial - trials.begin())].seconds;
    }
    const std::vector<tune::Candidate> tried = tune::shortlist(work.space, tune::Protocol{}.candidates);
    std::vector<Line> lines;
    for (const tune::Candidate& candidate : work.space) {
        Line line{candidate, 0, 0, "", ""};
        const auto trial = trial_of(candidate);
        const bool is_used = candidate.legal() && candidate.configuration == used;
        const bool short_listed = std::any_of(tried.begin(), tried.end(), [&](const tune::Candidate& one) {
            return one.configuration == candidate.configuration;
        });
        if (trial != trials.end()) {
            const tune::Estimate& time = times[static_cast<std::size_t>(trial - trials.begin())];
            if (time.samples > 0) {
                line.measured_seconds = time.seconds;
                line.noise = time.noise;
            }
        }
        const auto ratio = [&] { return line.measured_seconds / winner_seconds; };
        if (is_used) {
            line.status = "used";
            if (!work.choice) {
                line.why = "predicted to be the fastest";
            } else {
                line.why = work.near ? "the choice of the record that serves here" : judgement.reason;
            }
        } else if (!candidate.legal()) {
            line.status = "refused";
            line.why = candidate.refusal;
        } else if (trial != trials.end() && trial->verdict == tune::Verdict::refused) {
            line.status = "refused";
            line.why = trial->why;
        } else if (trial != trials.end() && trial->verdict == tune::Verdict::slow) {
            line.status = "slow";
            line.why = "twice the time of the best or more, dropped after its first round";
        } else if (line.measured_seconds > 0 && winner_seconds > 0) {
            line.status = trial->verdict == tune::Verdict::measured ? "lost" : "pending";
            line.why = ratio() > 1 ? fmt::format("{:.3f} times the time of the choice", ratio())
                                   : fmt::format("{:.3f} times the time of the choice, within the noise", ratio());
        } else if (trial != trials.end()) {
            line.status = "pending";
            line.why = "not measured yet";
        } else if (!trials.empty()) {
            line.status = "not tried";
            line.why = fmt::format("not among the {} that were tried", trials.size());
        } else if (!short_listed) {
            line.status = "not tried";
            line.why = fmt::format("not among the {} that are predicted to be fastest", tried.size());
        } else {
            line.status = "lost";
            line.why = fmt::format("{}predicted to take {:.2f} times as long", work.near ? "not measured here, " : "",
                                   chosen == nullptr ? 0 : candidate.predicted_seconds / chosen->predicted_seconds);
        }
        lines.push_back(std::move(line));
    }
    std::stable_sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) {
        const auto rank = [](const Line& line) {
            const bool out = line.status == "refused";
            return std::tuple(line.status != "used", out, line.measured_seconds > 0 ? 0 : 1,
                              line.measured_seconds > 0 ? line.measured_seconds : line.candidate.predicted_seconds);
        };
        return rank(a) < rank(b);
    });
    return lines;
}

/// The kernels of the choice: from the cache, else compiled.
void add_kernels(Explanation& explanation, const Engine& engine, const plan::Plan& plan, const gpu::Arch& arch) {
    if (!plan.has(explanation.work.role)) return;
    const jit::KernelSpec& spec = plan.at(explanation.work.role).spec;
    try {
        const jit::CompileResult result = engine.impl().kernels.ensure_cached(spec, arch);
        explanation.kernels.push_back({jit::readable(spec), result.registers, result.spill_bytes,
                                       result.shared_bytes + static_cast<std::int64_t>(spec.dynamic_shared),
                                       spec.threads});
    } catch (const Error& error) {
        if (error.code() != ErrorCode::compile) throw;
        explanation.kernels_error = error.what();
    }
}

/// What SMLORA_TUNING=off uses.
void leave_records(autotune::KnownWork& work) {
    work.tuning.reset();
    work.near.reset();
    work.choice.reset();
}

std::vector<Explanation> explain(const Engine& engine, const Problem& problem, std::int64_t T,
                                 const gpu::DeviceFacts& facts, const Ceilings& ceilings) {
    std::vector<Explanation> explanations;
    for (const plan::Request& request : plan::step_requests(problem, T)) {
        plan::Choices choices;
        std::vector<autotune::KnownWork> works = autotune::tuner_of(engine).look_up(problem, request, facts);
        for (autotune::KnownWork& work : works) {
            if (engine.impl().options.tuning == TuningPolicy::off) leave_records(work);
            choices.set(work.role, work.choice);
        }
        const plan::Plan plan = plan::make_plan(problem, request, facts, choices);
        for (autotune::KnownWork& work : works) {
            Explanation one;
            one.source = source_of(work, autotune::tuner_of(engine).why_unfit(work));
            const tune::Configuration used = plan::configuration_for(problem, request, work.role, facts, choices);
            one.lines = lines_of(work, used);
            if (const tune::Candidate* candidate = tune::find_legal(work.space, used)) one.used = candidate->name;
            one.floor_seconds = floor_of(work, problem, T, ceilings);
            one.work = std::move(work);
            add_kernels(one, engine, plan, facts.arch);
            explanations.push_back(std::move(one));
        }
    }
    return explanations;
}

double share(const Explanation& explanation, double seconds) {
    return seconds > 0 ? explanation.floor_seconds / seconds : 0;
}

nlohmann::ordered_json to_json(const Explanation& explanation) {
    nlohmann::ordered_json json{{"slot", explanation.work.slot},
                                {"source", explanation.source},
                                {"used", explanation.used},
                                {"floor_seconds", explanation.floor_seconds},
                                {"record", explanation.work.name.key()},
                                {"served_by", explanation.work.near ? explanation.work.near->name.key() : ""},
                                {"kernels_error", explanation.kernels_error}};
    json["kernels"] = nlohmann::ordered_json::array();
    for (const KernelUse& use : explanation.kernels) {
        json["kernels"].push_back({{"kernel", use.kernel},
                                   {"registers", use.registers},
                                   {"spill_bytes", use.spill_bytes},
                                   {"shared_bytes", use.shared_bytes},
                                   {"threads", use.threads}});
    }
    json["candidates"] = nlohmann::ordered_json::array();
    for (const Line& line : explanation.lines) {
        nlohmann::ordered_json candidate{
            {"name", line.candidate.name},
            {"configuration", tune::to_json(line.candidate.configuration)},
            {"shared_bytes", line.candidate.shared_bytes},
            {"predicted_seconds", line.candidate.predicted_seconds},
            {"predicted_floor_fraction", share(explanation, line.candidate.predicted_seconds)}};
        if (line.measured_seconds > 0) {
            candidate["measured_seconds"] = line.measured_seconds;
            candidate["noise"] = line.noise;
            candidate["floor_fraction"] = share(explanation, line.measured_seconds);
        }
        candidate["status"] = line.status;
        candidate["why"] = line.why;
        json["candidates"].push_back(std::move(candidate));
    }
    return json;
}

void print_text(const Explanation& explanation, bool all, const Style& style) {
    fmt::print("{}  {}\n", style.bold(explanation.work.slot), explanation.source);
    for (const KernelUse& use : explanation.kernels) {
        fmt::print("  {} threads, {} registers, {} bytes spilled, {} shared memory: {}\n", use.threads, use.registers,
                   use.spill_bytes, bytes_text(static_cast<std::uint64_t>(use.shared_bytes)), use.kernel);
    }
    if (!explanation.kernels_error.empty()) fmt::print("  not compiled: {}\n", explanation.kernels_error);
    const bool measured = std::any_of(explanation.lines.begin(), explanation.lines.end(),
                                      [](const Line& line) { return line.measured_seconds > 0; });
    std::vector<Table::Column> columns{{"  candidate"}, {"predicted", Align::right}};
    if (measured) columns.push_back({"measured", Align::right});
    columns.insert(columns.end(), {{"of floor", Align::right}, {"shared", Align::right}, {"status"}, {"why"}});
    Table table(columns);
    std::size_t left_out = 0;
    for (const Line& line : explanation.lines) {
        if (!all && line.status == "not tried") {
            ++left_out;
            continue;
        }
        const double time = measured ? line.measured_seconds : line.candidate.predicted_seconds;
        std::vector<std::string> cells{"  " + line.candidate.name, seconds_text(line.candidate.predicted_seconds)};
        if (measured) cells.push_back(line.measured_seconds > 0 ? seconds_text(line.measured_seconds) : "-");
        // A prediction below the floor is good for nothing but comparing it with others.
        const bool makes_sense = measured ? time > 0 : time >= explanation.floor_seconds;
        cells.push_back(makes_sense ? fmt::format("{:.2f}", share(explanation, time)) : "-");
        cells.push_back(bytes_text(static_cast<std::uint64_t>(line.candidate.shared_bytes)));
        cells.push_back(line.status == "used" ? style.good("used") : line.status);
        cells.push_back(line.why);
        table.add(std::move(cells));
    }
    fmt::print("{}", table.text());
    if (left_out > 0) fmt::print("  and {} that are not tried; --all shows them\n", left_out);
    fmt::print("\n");
}

/// Of a GPU of this machine, or of a typical one: then `is_assumed` is set.
gpu::DeviceFacts facts_for(const ExplainCommand& command, bool& is_assumed) {
    std::vector<gpu::DeviceFacts> gpus;
    try {
        for (int ordinal = 0; ordinal < gpu::device_count(); ++ordinal) gpus.push_back(gpu::device_facts(ordinal));
    } catch (const Error& error) {
        if (error.code() != ErrorCode::no_device && error.code() != ErrorCode::unsupported) throw;
    }
    const bool by_name = !command.gpu.empty();
    for (const gpu::DeviceFacts& gpu : gpus) {
        if (by_name ? gpu.name == command.gpu : command.arch.empty() || gpu.arch.name() == command.arch) return gpu;
    }
    is_assumed = true;
    if (by_name) return gpu::facts_of(command.gpu);
    return gpu::facts_of(gpu::arch_from_name(command.arch.empty() ? "sm_90a" : command.arch));
}

ExitCode run_explain(const ExplainCommand& command) {
    const std::vector<NamedProblem> problems = resolve(command.shape, Backend::cuda);
    std::vector<std::int64_t> tokens = command.shape.tokens;
    if (tokens.empty()) tokens.push_back(2048);
    if (*std::min_element(tokens.begin(), tokens.end()) < 1) {
        throw UsageError("--tokens: expected at least 1, got 0: there is nothing to explain");
    }
    gpu::DeviceFacts facts;
    bool is_assumed = false;
    try {
        facts = facts_for(command, is_assumed);
    } catch (const Error& error) {
        if (error.code() == ErrorCode::invalid_argument) throw UsageError(error.what());
        throw;
    }
    const gpu::Peak peak = gpu::peak_of(facts);
    Ceilings ceilings{peak.flop_per_second, peak.bytes_per_second};
    if (command.ceiling_tflops > 0) ceilings.flop_per_second = command.ceiling_tflops * 1e12;
    if (command.ceiling_gbs > 0) ceilings.bytes_per_second = command.ceiling_gbs * 1e9;

    const Engine engine(engine_options(command.common, Backend::cpu, 0, 1));
    const Style style(stdout);
    nlohmann::ordered_json document = json_document("explain");
    document["gpu"] = facts.name;
    document["gpu_assumed"] = is_assumed;
    document["arch"] = facts.arch.name();
    document["ceilings"] = {{"tflops", ceilings.flop_per_second * 1e-12}, {"gbs", ceilings.bytes_per_second * 1e-9}};
    document["cases"] = nlohmann::ordered_json::array();
    if (!command.common.json) {
        fmt::print("{} ({}{}), ceilings {:.4g} TFLOP/s and {:.4g} GB/s\n\n", facts.name, facts.arch.name(),
                   is_assumed ? ", taken as there is none here" : "", ceilings.flop_per_second * 1e-12,
                   ceilings.bytes_per_second * 1e-9);
    }
    for (const NamedProblem& item : problems) {
        for (const std::int64_t T : tokens) {
            const std::vector<Explanation> explanations = explain(engine, item.problem, T, facts, ceilings);
            nlohmann::ordered_json json{{"name", item.name}, {"problem", to_string(item.problem)}, {"tokens", T}};
            json["works"] = nlohmann::ordered_json::array();
            if (!command.common.json) fmt::print("{}\n\n", case_text(item, T, explanations.size()));
            for (const Explanation& one : explanations) {
                json["works"].push_back(to_json(one));
                if (!command.common.json) print_text(one, command.all, style);
            }
            document["cases"].push_back(std::move(json));
        }
    }
    if (command.common.json) print_json(document);
    return ExitCode::ok;
}

}  // namespace

void add_explain(CLI::App& app, Run& run) {
    auto command = std::make_shared<ExplainCommand>();
    CLI::App* sub = app.add_subcommand("explain", "Which kernels are used for a shape, which are not, and why");
    sub->footer(footer);
    add_shape_options(*sub, command->shape, "2048");
    CLI::Option* arch =
        sub->add_option("--arch", command->arch, "Architecture [the GPU's, else sm_90a]")->type_name("sm_90a");
    sub->add_option("--gpu", command->gpu, "A GPU by the name that its driver gives it, here or not")
        ->type_name("NAME")
        ->excludes(arch);
    sub->add_flag("--all", command->all, "Candidates that are not tried, too");
    sub->add_option("--ceiling-tflops", command->ceiling_tflops, "Instead of a typical GPU's")
        ->type_name("TFLOP/s")
        ->check(positive_number());
    sub->add_option("--ceiling-gbs", command->ceiling_gbs, "Instead of a typical GPU's")
        ->type_name("GB/s")
        ->check(positive_number());
    add_common_options(*sub, command->common);
    sub->callback([command, &run] { run = [command] { return run_explain(*command); }; });
}

}  // namespace smlora::tool
