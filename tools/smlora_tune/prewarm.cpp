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

#include <limits>
#include <map>
#include <memory>

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

The types must be those of the training job, or it compiles others. PEFT keeps adapters in fp32 unless told otherwise,
and the gates of most models are bf16: add --adapter-dtype fp32 --gate-dtype bf16 for such a job.

Examples:
  smlora-tune prewarm --model qwen3-30b-a3b --rank 16 --tokens 4096,16384 --arch sm_90a
  smlora-tune prewarm --model gpt-oss-20b --weights mxfp4 --adapter-dtype fp32 --gate-dtype bf16)";

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
    document["seconds"] = report.seconds;
    document["compile_seconds"] = report.compile_seconds;
    document["warnings"] = report.warnings;
    return document;
}

ExitCode run_prewarm(const PrewarmCommand& command) {
    PrewarmOptions options;
    const std::vector<NamedProblem> problems = with_other_scales(resolve(command.shape, Backend::cuda));
    for (const NamedProblem& item : problems) {
        options.problems.push_back(item.problem);
        if (!item.activation || command.activation == "none") continue;
        PrewarmActivation& activation = options.activations.emplace_back(*item.activation);
        if (!command.activation.empty()) activation.activation = activations.at(command.activation);
        if (!command.gate_layout.empty()) {
            activation.layout = command.gate_layout == "halves" ? GateLayout::halves : GateLayout::interleaved;
        }
    }
    options.tokens = command.shape.tokens;
    options.archs = command.archs;
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
    for (const NamedProblem& item : problems) print_results("{}\n", problem_text(item));
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
    sub->add_option("--share", command->share,
                    "Who may read the cache afterwards, and name it as a layer: group or all [its owner alone]")
        ->type_name("WHO")
        ->check(CLI::IsMember({"group", "all"}).description(""));
    sub->add_option("-j,--jobs", command->jobs, "Kernels to compile at once [one per core]")
        ->type_name("N")
        ->check(whole_number(1, std::numeric_limits<int>::max()));
    add_common_options(*sub, command->common);
    sub->callback([command, &run] { run = [command] { return run_prewarm(*command); }; });
}

}  // namespace smlora::tool
