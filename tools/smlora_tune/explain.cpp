// smlora-tune explain: which kernels a problem uses, which others there are, and why.
#include "smlora_tune/command.hpp"
#include "smlora_tune/explanation.hpp"
#include "smlora_tune/gpu_names.hpp"
#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/shape_options.hpp"
#include "smlora_tune/table.hpp"
#include "smlora_tune/terminal.hpp"
#include "smlora_tune/units.hpp"
#include "util/counted.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

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

constexpr const char* explain_footer =
    R"(Needs no GPU: without one, predictions are for a typical GPU of --arch, or for the one that --gpu names. Measured
times come from the records of that GPU. Kernels that are not in the cache are compiled, for the registers that they use.
The floor is max(flop / ceiling, bytes / ceiling) with every input read once and every output written once.
"of floor" is floor / time: 1 is the best there can be. Quantised weights are unpacked first, in slices of experts where
all of them would take too much memory; products are chosen, timed and compared with floors as those of plain weights.
Of arranged weights, "forward decoding" and "dx decoding" say which product decodes them, or that they are unpacked.

Examples:
  smlora-tune explain --shape 128,2048,1536,16,8 --tokens 2048 --arch sm_90a
  smlora-tune explain --model olmoe --rank 16 --tokens 2048 --gpu H100
  smlora-tune explain --model gpt-oss-20b --weights mxfp4 --tokens 8192 --gpu H200)";

double share(const Explanation& explanation, double seconds) {
    return seconds > 0 ? explanation.floor_seconds / seconds : 0;
}

nlohmann::ordered_json to_json(const Unpacking& unpacking, const std::vector<DType>& other_scales) {
    nlohmann::ordered_json json{{"weights", to_string(unpacking.weights)},
                                {"slice_experts", unpacking.experts},
                                {"slices", unpacking.slices},
                                {"slice_bytes", unpacking.bytes},
                                {"packed_bytes", unpacking.packed_bytes},
                                {"floor_seconds", unpacking.floor_seconds},
                                {"other_scales", nlohmann::ordered_json::array()}};
    for (const DType dtype : other_scales) json["other_scales"].push_back(name(dtype));
    return json;
}

void print_text(const Unpacking& unpacking, const std::vector<DType>& other_scales, const Style& style) {
    const std::string experts = unpacking.slices == 1 ? util::counted(unpacking.experts, "expert") + " at once"
                                                      : fmt::format("{} slices of {}", unpacking.slices,
                                                                    util::counted(unpacking.experts, "expert"));
    print_results("{}  weights: {}, {}\n", style.bold("unpack"), to_string(unpacking.weights),
                  bytes_text(static_cast<std::uint64_t>(unpacking.packed_bytes)));
    if (!other_scales.empty()) print_results("  {}\n", scales_text(unpacking.weights, other_scales));
    print_results("  {}, unpacked to {}; floor of all {}\n", experts,
                  bytes_text(static_cast<std::uint64_t>(unpacking.bytes)), seconds_text(unpacking.floor_seconds));
    print_results(
        "  products that do not decode the weights read what is unpacked; their tiles are those chosen for plain "
        "weights"
        "\n\n");
}

nlohmann::ordered_json to_json(const Explanation& explanation) {
    nlohmann::ordered_json json{
        {"slot", explanation.work.slot},
        {"source", explanation.source},
        {"used", explanation.used},
        {"floor_seconds", explanation.floor_seconds},
        {"record", explanation.work.name.key()},
        {"served_by", explanation.work.near() != nullptr ? explanation.work.near()->name.key() : ""},
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
            {"configuration", tuning::to_json(line.candidate.configuration)},
            {"shared_bytes", line.candidate.shared_bytes},
            {"predicted_seconds", line.candidate.predicted_seconds},
            {"predicted_floor_fraction", share(explanation, line.candidate.predicted_seconds)}};
        if (line.measured_seconds > 0) {
            candidate["measured_seconds"] = line.measured_seconds;
            candidate["noise"] = line.noise;
            candidate["floor_fraction"] = share(explanation, line.measured_seconds);
        }
        candidate["status"] = word(line.standing);
        candidate["why"] = line.why;
        json["candidates"].push_back(std::move(candidate));
    }
    return json;
}

void print_text(const Explanation& explanation, bool all, const Style& style) {
    print_results("{}  {}\n", style.bold(explanation.work.slot), explanation.source);
    for (const KernelUse& use : explanation.kernels) {
        print_results("  {} threads, {} registers, {} bytes spilled, {} shared memory: {}\n", use.threads,
                      use.registers, use.spill_bytes, bytes_text(static_cast<std::uint64_t>(use.shared_bytes)),
                      use.kernel);
    }
    if (!explanation.kernels_error.empty()) print_results("  not compiled: {}\n", explanation.kernels_error);
    const bool measured = std::any_of(explanation.lines.begin(), explanation.lines.end(),
                                      [](const Line& line) { return line.measured_seconds > 0; });
    std::vector<Table::Column> columns{{"  candidate"}, {"predicted", Align::right}};
    if (measured) columns.push_back({"measured", Align::right});
    columns.insert(columns.end(), {{"of floor", Align::right}, {"shared", Align::right}, {"status"}, {"why"}});
    Table table(columns);
    std::size_t left_out = 0;
    for (const Line& line : explanation.lines) {
        if (!all && is_untried(line.standing)) {
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
        cells.push_back(word(line.standing) == "used" ? style.good("used") : std::string(word(line.standing)));
        cells.push_back(line.why);
        table.add(std::move(cells));
    }
    print_results("{}", table.text());
    if (left_out > 0) print_results("  {} more are not tried; --all shows them\n", left_out);
    print_results("\n");
}

/// The GPU that is explained, and whether it is one of this machine.
struct Subject {
    gpu::DeviceFacts facts;
    std::string_view remark;  ///< how it was come by, where it is not here
};

Subject subject_of(const ExplainCommand& command) {
    const std::vector<gpu::DeviceFacts> here = gpus_here();
    const std::string_view remark = here.empty() ? "assumed, no GPU found" : "assumed, not a GPU of this machine";
    if (!command.gpu.empty()) {
        const std::string name = full_gpu_name(command.gpu, here);
        for (const gpu::DeviceFacts& gpu : here) {
            if (gpu.name == name) return {gpu, ""};
        }
        return {gpu::facts_of(name), remark};
    }
    for (const gpu::DeviceFacts& gpu : here) {
        if (command.arch.empty() || gpu.arch.name() == command.arch) return {gpu, ""};
    }
    return {gpu::facts_of(gpu::arch_from_name(command.arch.empty() ? "sm_90a" : command.arch)), remark};
}

ExitCode run_explain(const ExplainCommand& command) {
    const std::vector<NamedProblem> problems = resolve(command.shape, Backend::cuda);
    std::vector<std::int64_t> tokens = command.shape.tokens;
    if (tokens.empty()) tokens.push_back(2048);
    if (*std::min_element(tokens.begin(), tokens.end()) < 1) {
        throw UsageError("--tokens: expected at least 1, got 0");
    }
    Subject subject;
    try {
        subject = subject_of(command);
    } catch (const Error& error) {
        if (error.code() == ErrorCode::invalid_argument) throw UsageError(fmt::format("--{}", error.what()));
        throw;
    }
    const gpu::DeviceFacts& facts = subject.facts;
    const gpu::Peak peak = gpu::peak_of(facts);
    Ceilings ceilings{peak.flop_per_second, peak.bytes_per_second};
    if (command.ceiling_tflops > 0) ceilings.flop_per_second = command.ceiling_tflops * 1e12;
    if (command.ceiling_gbs > 0) ceilings.bytes_per_second = command.ceiling_gbs * 1e9;

    const Engine engine(engine_options(command.common, Backend::cpu, 0, 1));
    remark_missing_layers(engine);
    tokens = choice_tokens(engine, std::move(tokens));
    const Style style(stdout);
    nlohmann::ordered_json document = json_document("explain");
    document["gpu"] = facts.name;
    document["gpu_assumed"] = !subject.remark.empty();
    document["arch"] = facts.arch.name();
    document["ceilings"] = {{"tflops", ceilings.flop_per_second * 1e-12}, {"gbs", ceilings.bytes_per_second * 1e-9}};
    document["cases"] = nlohmann::ordered_json::array();
    if (!command.common.json) {
        print_results("{} ({}{}{}), ceilings {:.4g} TFLOP/s and {:.4g} GB/s\n\n", facts.name, facts.arch.name(),
                      subject.remark.empty() ? "" : "; ", subject.remark, ceilings.flop_per_second * 1e-12,
                      ceilings.bytes_per_second * 1e-9);
    }
    for (const NamedProblem& item : problems) {
        for (const std::int64_t T : tokens) {
            const std::vector<Explanation> explanations = explain(engine, item.problem, T, facts, ceilings);
            const std::optional<Unpacking> unpacking = explain_unpacking(engine, item.problem, ceilings);
            nlohmann::ordered_json json = json_of(item);
            json["tokens"] = T;
            if (unpacking) json["unpack"] = to_json(*unpacking, item.other_scales);
            json["works"] = nlohmann::ordered_json::array();
            if (!command.common.json) {
                print_results("{}\n\n", case_text(item, T, explanations.size()));
                if (unpacking) print_text(*unpacking, item.other_scales, style);
            }
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
    sub->footer(explain_footer);
    add_shape_options(*sub, command->shape, "2048");
    CLI::Option* arch =
        sub->add_option("--arch", command->arch, "Architecture [the GPU's, else sm_90a]")->type_name("sm_90a");
    sub->add_option("--gpu", command->gpu,
                    "Explain this GPU from its records, here or not: H100, H200, or the driver's name; not with --arch")
        ->type_name("NAME")
        ->excludes(arch);
    sub->add_flag("--all", command->all, "Show the candidates that are not tried, too");
    sub->add_option("--ceiling-tflops", command->ceiling_tflops, "Peak speed of products [a typical GPU's]")
        ->type_name("TFLOP/s")
        ->check(positive_number());
    sub->add_option("--ceiling-gbs", command->ceiling_gbs, "Peak speed of memory [a typical GPU's]")
        ->type_name("GB/s")
        ->check(positive_number());
    add_common_options(*sub, command->common);
    sub->callback([command, &run] { run = [command] { return run_explain(*command); }; });
}

}  // namespace smlora::tool
