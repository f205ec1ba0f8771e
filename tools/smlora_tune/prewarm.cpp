// smlora-tune prewarm: compiles what a training job will need before it starts.
#include <smlora/prewarm.hpp>

#include "smlora_tune/command.hpp"
#include "smlora_tune/list_option.hpp"
#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/progress.hpp"
#include "smlora_tune/shape_options.hpp"
#include "smlora_tune/units.hpp"

#include "engine/engine_impl.hpp"
#include "util/counted.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

namespace smlora::tool {
namespace {

struct PrewarmCommand {
    CommonOptions common;
    ShapeOptions shape;
    std::vector<std::string> archs;
    int jobs = 0;
    std::string activation;
    std::string gate_layout;
    std::string share;
    bool peft = false;
    bool no_peft = false;
    bool dry_run = false;
    std::int64_t expert_ranks = 1;
    std::string expert_tokens = "own";
};

const std::map<std::string, cache::Readers> readers{{"group", cache::Readers::group},
                                                    {"all", cache::Readers::everyone}};

const std::map<std::string, Activation> activations{{"swiglu", Activation::swiglu},
                                                    {"geglu", Activation::geglu},
                                                    {"geglu_tanh", Activation::geglu_tanh},
                                                    {"reglu", Activation::reglu},
                                                    {"swiglu_clamped", Activation::swiglu_clamped}};

constexpr const char* prewarm_footer =
    R"(Needs NVRTC, but no GPU. Kernels that the cache has are not compiled again. For each shape the kernels are compiled
that are recorded to be fastest, or predicted to be where there is no record. The activation that follows the gate_up
projection of a model is compiled too, and so is one after a --shape with an even number of outputs whose rows are
not summed. What decodes weights of mxfp4, mxfp8 or fp8 is compiled for each type that checkpoints have their scales in,
unless --weights or the config says which.

The types must be those of the training job, or it compiles others. For --model and --config they are those of a job
with PEFT: adapters in fp32, and gates as the model's router gives them; where that is not known, gates in fp32 and in
the type of x. --adapter-dtype and --gate-dtype say otherwise.

With --ep a rank has a part of the experts. Each row that it receives has one expert, and its gate is applied where it
came from. --tokens are those of one rank before the exchange. As many rows arrive on average as the tokens have
experts, so kernels are compiled for that number, its half and its double. With --ep-tokens shared all ranks see the
same tokens and leave out the experts of others, as with ep_implementation="all_reduce".

Examples:
  smlora-tune prewarm --model qwen3-30b-a3b --rank 16 --tokens 4096,16384 --arch sm_90a
  smlora-tune prewarm --model qwen3-30b-a3b --ep 8 --tokens 4096
  smlora-tune prewarm --model gpt-oss-20b --weights mxfp4)";

bool has_types_of_peft(const PrewarmCommand& command, const NamedProblem& item) {
    return command.peft || (item.is_of_a_model && !command.no_peft);
}

/// As a job with PEFT has them, unless the command line says otherwise. A projection with gates whose type is not known
/// becomes two.
std::vector<NamedProblem> with_types_of_peft(const std::vector<NamedProblem>& items, const PrewarmCommand& command) {
    std::vector<NamedProblem> all;
    const auto add = [&](NamedProblem item, std::optional<DType> gates) {
        const bool is_named_by_problem = item.name == to_string(item.problem);
        if (command.shape.adapter_dtype.empty()) item.problem.adapter_dtype = DType::fp32;
        if (command.shape.gate_dtype.empty() && gates) item.problem.gate_dtype = *gates;
        if (is_named_by_problem) item.name = to_string(item.problem);
        all.push_back(std::move(item));
    };
    for (const NamedProblem& item : items) {
        if (!has_types_of_peft(command, item)) {
            all.push_back(item);
            continue;
        }
        const DType dtype = item.problem.dtype;
        const bool open = item.gates == models::GateType::either && item.problem.gates && dtype != DType::fp32 &&
                          command.shape.gate_dtype.empty();
        add(item, item.gates == models::GateType::fp32 ? DType::fp32 : dtype);
        if (open) add(item, DType::fp32);
    }
    return all;
}

/// Those of the options, and for a rank that receives the rows of its experts those that stand for their numbers, which
/// differ by rank and step.
std::vector<std::int64_t> rows_of(const ShapeOptions& options, const std::vector<NamedProblem>& problems) {
    if (options.parallelism.ranks == 1 || options.parallelism.shares_tokens) return options.tokens;
    std::set<std::int64_t> rows;
    for (const NamedProblem& item : problems) {
        for (const std::int64_t T : options.tokens) {
            const std::int64_t average = T * item.rows_per_token;
            rows.insert({std::max<std::int64_t>(1, average / 2), average, 2 * average});
        }
    }
    return {rows.begin(), rows.end()};
}

void check(const PrewarmCommand& command) {
    if (command.expert_ranks == 1) return;
    if (!command.shape.shapes.empty()) {
        throw UsageError(
            "--ep: --shape has the experts of a rank, its first number; --ep goes with --model and --config");
    }
    if (command.shape.tokens.empty()) {
        throw UsageError("--ep: expected --tokens, which say how many rows a rank receives");
    }
}

/// What decodes weights is compiled for the type of their scales, so each that these may have is a problem of its own.
std::vector<NamedProblem> with_other_scales(const std::vector<NamedProblem>& items) {
    std::vector<NamedProblem> all;
    for (const NamedProblem& item : items) {
        all.push_back(item);
        for (const DType scales : item.other_scales) {
            NamedProblem& other = all.emplace_back(item);
            other.problem.weights.scales = scales;
            if (item.name == to_string(item.problem)) other.name = to_string(other.problem);
        }
    }
    return all;
}

nlohmann::ordered_json to_json(const std::vector<NamedProblem>& problems, const PrewarmReport& report) {
    nlohmann::ordered_json document = json_document("prewarm");
    for (const NamedProblem& item : problems) {
        document["problems"].push_back(json_of(item));
    }
    document["kernels"] = report.kernels;
    document["compiled"] = report.compiled;
    document["found"] = report.found;
    document["not_stored"] = report.not_stored;
    document["works"] = report.works;
    document["recorded"] = report.recorded;
    document["seconds"] = report.seconds;
    document["compile_seconds"] = report.compile_seconds;
    document["warnings"] = report.warnings;
    return document;
}

ExitCode run_prewarm(PrewarmCommand command) {
    check(command);
    command.shape.parallelism = {command.expert_ranks, command.expert_tokens == "shared"};
    PrewarmOptions options;
    const std::vector<NamedProblem> problems =
        with_types_of_peft(with_other_scales(resolve(command.shape, Backend::cuda)), command);
    for (const NamedProblem& item : problems) {
        options.problems.push_back(item.problem);
        if (command.activation == "none") continue;
        if (item.has_own_activation && (command.activation.empty() || !item.activation)) {
            print_remark("{}: the model's own code computes the activation: none is compiled\n", item.name);
            continue;
        }
        if (!item.activation) continue;
        PrewarmActivation& activation = options.activations.emplace_back(*item.activation);
        if (!command.activation.empty()) activation.activation = activations.at(command.activation);
        if (!command.gate_layout.empty()) {
            activation.layout = command.gate_layout == "halves" ? GateLayout::halves : GateLayout::interleaved;
        }
    }
    options.tokens = rows_of(command.shape, problems);
    options.archs = command.archs;
    options.check_only = command.dry_run;
    options.jobs = command.jobs;

    ProgressLine line(stderr);
    // Neither --jobs nor the cache needs a GPU, so the engine is made for the backend that asks for none.
    const Engine engine(
        engine_options(command.common, Backend::cpu, 0, 0, [&line](const std::string& text) { line.print(text); }));
    remark_missing_layers(engine);
    PrewarmReport report;
    try {
        report = prewarm(engine, options, [&line](const PrewarmProgress& progress) {
            line.update(progress.done, progress.total, progress.compiling);
        });
    } catch (const Error& error) {
        // --arch is the one argument that only the library checks.
        if (error.code() == ErrorCode::invalid_argument) throw UsageError(fmt::format("--{}", error.what()));
        throw;
    }
    line.finish();
    for (const std::string& warning : report.warnings) print_remark("smlora-tune: warning: {}\n", warning);
    cache::ShareReport shared;
    if (!command.share.empty()) shared = engine.impl().cache.share(readers.at(command.share));
    for (const CacheProblem& problem : shared.problems) {
        print_remark("smlora-tune: --share: {}: {}\n", problem.file.string(), problem.what);
    }
    // The cache is as cold as before where a kernel could not be stored, or others cannot read it.
    const ExitCode exit = report.not_stored == 0 && shared.problems.empty() ? ExitCode::ok : ExitCode::failure;
    if (command.common.json) {
        nlohmann::ordered_json document = to_json(problems, report);
        if (!command.share.empty()) document["shared"] = shared.changed;
        print_json(document);
        return exit;
    }
    for (const NamedProblem& item : problems) {
        print_results("{}{}\n", problem_text(item), has_types_of_peft(command, item) ? ", types as PEFT has them" : "");
    }
    if (command.dry_run) {
        print_results("{}: {} to compile, {} found in the cache; {} of {} choices among kernels are recorded\n",
                      util::counted(report.kernels, "kernel"), report.kernels - report.found, report.found,
                      report.recorded, report.works);
        return exit;
    }
    print_results("{}: {} compiled, {} found in the cache, {}", util::counted(report.kernels, "kernel"),
                  report.compiled, report.found, seconds_text(report.seconds));
    if (report.compiled > 0) {
        print_results(" ({} a kernel)", seconds_text(report.compile_seconds / static_cast<double>(report.compiled)));
    }
    print_results("\n");
    if (!command.share.empty()) {
        print_results("{} folders and files opened for {} to read\n", shared.changed,
                      command.share == "group" ? "the group" : "everyone");
    }
    return exit;
}

}  // namespace

void add_prewarm(CLI::App& app, Run& run) {
    auto command = std::make_shared<PrewarmCommand>();
    CLI::App* sub = app.add_subcommand("prewarm", "Compile every kernel of a training step into the cache");
    sub->footer(prewarm_footer);
    add_shape_options(*sub, command->shape, "a few typical ones");
    add_list(*sub, "--arch", command->archs, "Architectures to compile for [the GPU's, else sm_90a]", "sm_90a,..");
    sub->add_option("--activation", command->activation,
                    "Activation: swiglu, geglu, geglu_tanh, reglu, swiglu_clamped or none [the model's, else swiglu]")
        ->type_name("NAME")
        ->check(CLI::IsMember({"swiglu", "geglu", "geglu_tanh", "reglu", "swiglu_clamped", "none"}).description(""));
    sub->add_option("--gate-layout", command->gate_layout,
                    "Order of gates and values: halves or interleaved [the model's, else halves]")
        ->type_name("LAYOUT")
        ->check(CLI::IsMember({"halves", "interleaved"}).description(""));
    CLI::Option* const peft = sub->add_flag(
        "--peft", command->peft,
        "Types of a job with PEFT: adapters in fp32, gates as the router gives them [with --model and --config]");
    sub->add_flag("--no-peft", command->no_peft, "Adapters in the type of x, gates in fp32 [with --shape]")
        ->excludes(peft);
    sub->add_option("--ep", command->expert_ranks,
                    "Ranks of expert parallelism that hold the experts of --model and --config together [1]")
        ->type_name("N")
        ->check(whole_number(1, 1 << 16));
    sub->add_option("--ep-tokens", command->expert_tokens,
                    "own: a rank receives the rows of its experts; shared: all ranks see the same tokens")
        ->type_name("WHICH")
        ->check(CLI::IsMember({"own", "shared"}).description(""))
        ->capture_default_str();
    CLI::Option* const dry = sub->add_flag("--dry-run", command->dry_run, "Compile nothing: say what the cache has");
    sub->add_option("--share", command->share,
                    "Who may read the cache afterwards, and name it as a layer: group or all [its owner alone]")
        ->type_name("WHO")
        ->excludes(dry)
        ->check(CLI::IsMember({"group", "all"}).description(""));
    sub->add_option("-j,--jobs", command->jobs, "Kernels to compile at once [one per core]")
        ->type_name("N")
        ->check(whole_number(1, std::numeric_limits<int>::max()));
    add_common_options(*sub, command->common);
    sub->callback([command, &run] { run = [command] { return run_prewarm(*command); }; });
}

}  // namespace smlora::tool
