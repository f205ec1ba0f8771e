// smlora-tune bench: how long operations take, and how close that is to the least time that they can take.
#include "smlora_tune/ceilings.hpp"
#include "smlora_tune/command.hpp"
#include "smlora_tune/floor.hpp"
#include "smlora_tune/list_option.hpp"
#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/operand_options.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/progress.hpp"
#include "smlora_tune/shape_options.hpp"
#include "smlora_tune/statistics.hpp"
#include "smlora_tune/table.hpp"
#include "smlora_tune/timing.hpp"
#include "smlora_tune/units.hpp"
#include "util/counted.hpp"

#include <smlora/activation.hpp>
#include <smlora/operations.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>

namespace smlora::tool {
namespace {

struct BenchCommand {
    CommonOptions common;
    DeviceOptions device;
    ShapeOptions shape;
    OperandCommandOptions operands;
    std::vector<std::string> ops;
    bool sustained = false;
    double ceiling_tflops = 0;
    double ceiling_gbs = 0;
};

constexpr const char* bench_footer =
    R"(Burst protocol: 120 ms idle, 3 calls unmeasured, 20 measured, twice; CUDA events on the GPU.
The floor is max(flop / ceiling, bytes / ceiling) with every input read once and every output written once. "of floor"
is floor / time: 1 is the best there can be. The ceilings are measured in the same run. Inputs rotate over more than
three times the L2 cache where they are small. Quantised weights count as they are stored: codes and scales of the
experts that have rows. "unpack" decodes all of them to memory; its "of floor" is the share of the copy's bandwidth.
The kernels are those that are recorded to be fastest, or predicted to be where there is no record: run smlora-tune
tune first to have them measured. SMLORA_DETERMINISM=batch takes those of its one number of tokens for every --tokens, so
that two runs, with and without it, show what it costs. SMLORA_TUNING=first-use measures them here before anything is timed, for up to 10 s
per problem and number of tokens.

Examples:
  smlora-tune bench --shape 128,2048,1536,16,8 --tokens 2048,16384
  smlora-tune bench --model olmoe --op forward,step --ceiling-tflops 796 --json
  smlora-tune bench --model qwen3-30b-a3b --weights nf4:64:double --tokens 8192)";

struct Result {
    Op op = Op::base;
    Timings timings;
    Work work;
    double floor_seconds = 0;
};

struct BenchedCase {
    NamedProblem item;
    Load load;
    std::size_t sets = 0;
    std::size_t forward_workspace = 0;  ///< bytes that an operation takes while it runs
    std::size_t dx_workspace = 0;
    const MeasuredCeilings* ceilings = nullptr;
    std::vector<Result> results;
};

std::vector<Op> parse_ops(const std::vector<std::string>& names) {
    std::vector<Op> ops;
    for (const std::string& text : names) {
        const std::optional<Op> op = op_from_name(text);
        if (!op)
            throw UsageError(fmt::format(
                "--op: expected base, forward, dx, lora_grad, step, activation, activation_backward, route, group, "
                "combine, combine_backward or unpack, got '{}'",
                text));
        ops.push_back(*op);
    }
    return ops;
}

/// Sets of operands to rotate over: enough for three times the L2, as far as memory allows.
std::deque<Operands> make_sets(Session& session, const Problem& problem, OperandOptions options) {
    std::deque<Operands> sets;
    sets.emplace_back(session.engine(), problem, options);
    const std::size_t bytes = sets.front().bytes();
    const std::size_t wanted = session.l2_bytes() * 3 / std::max<std::size_t>(bytes, 1) + 1;
    const std::size_t fitting = 1 + session.free_bytes() / 2 / std::max<std::size_t>(bytes, 1);
    constexpr std::size_t most = 64;
    while (sets.size() < std::min({wanted, fitting, most})) {
        ++options.seed;
        sets.emplace_back(session.engine(), problem, options);
    }
    return sets;
}

/// group() takes rows that are not grouped yet.
Problem group_problem(Problem problem) {
    if (problem.x_rows == RowOrder::grouped) problem.x_rows = RowOrder::scattered;
    return problem;
}

void run_op(Session& session, Op op, const Operands& operands) {
    const Engine& engine = session.engine();
    const Stream stream = session.stream();
    const Problem& problem = operands.inputs.problem;
    switch (op) {
        case Op::base:
            return scatter2scatter(engine, stream, problem, operands.forward_args());
        case Op::forward:
            return forward(engine, stream, problem, operands.forward_args());
        case Op::dx:
            return backward_input(engine, stream, problem, operands.backward_input_args());
        case Op::lora_grad:
            return backward_lora(engine, stream, problem, operands.backward_lora_args());
        case Op::activation:
            return activation(engine, stream, problem, operands.activation_args());
        case Op::activation_backward:
            return activation_backward(engine, stream, problem, operands.activation_backward_args());
        case Op::route:
            return route(engine, stream, problem, operands.route_args());
        case Op::group:
            return group(engine, stream, group_problem(problem), operands.group_args());
        case Op::combine:
            return combine(engine, stream, problem, operands.combine_args());
        case Op::combine_backward:
            return combine_backward(engine, stream, problem, operands.combine_backward_args());
        case Op::unpack:
            return dequantize(engine, stream, operands.dequantize_args());
        case Op::step:
            break;
    }
    forward(engine, stream, problem, operands.forward_args());
    backward_input(engine, stream, problem, operands.backward_input_args());
    backward_lora(engine, stream, problem, operands.backward_lora_args());
}

BenchedCase bench_case(Session& session, Timer& timer, const NamedProblem& item, const OperandOptions& options,
                       const std::vector<Op>& ops, const MeasuredCeilings& ceilings, ProgressLine& line) {
    const Problem& problem = item.problem;
    const std::deque<Operands> sets = make_sets(session, problem, options);
    const Engine& engine = session.engine();
    BenchedCase result{item,
                       sets.front().load(),
                       sets.size(),
                       forward_workspace(engine, problem, options.T),
                       backward_input_workspace(engine, problem, options.T),
                       &ceilings,
                       {}};
    for (const Operands& operands : sets) {
        // The routing, and xa and yb for the gradients.
        route(engine, session.stream(), problem, operands.route_args());
        run_op(session, Op::forward, operands);
        run_op(session, Op::dx, operands);
    }
    for (std::size_t i = 0; i < ops.size(); ++i) {
        line.announce(i, ops.size(), fmt::format("{} of {}", name(ops[i]), item.name));
        Result measured;
        measured.op = ops[i];
        measured.timings = timer.measure(
            [&](int call) { run_op(session, ops[i], sets[static_cast<std::size_t>(call) % sets.size()]); });
        measured.work = total_work(ops[i], problem, result.load);
        measured.floor_seconds = floor_seconds(ops[i], problem, result.load, ceilings.value);
        result.results.push_back(std::move(measured));
    }
    line.finish();
    return result;
}

nlohmann::ordered_json to_json(const Result& result) {
    const double middle = median(result.timings.seconds);
    return {{"op", name(result.op)},
            {"median_seconds", middle},
            {"min_seconds", quantile(result.timings.seconds, 0)},
            {"spread", spread(result.timings.seconds)},
            {"flop", result.work.flop},
            {"bytes", result.work.bytes},
            {"tflops", result.work.flop / middle * 1e-12},
            {"gbs", result.work.bytes / middle * 1e-9},
            {"floor_seconds", result.floor_seconds},
            {"floor_fraction", result.floor_seconds / middle},
            {"host_seconds", median(result.timings.host_seconds)},
            {"samples_seconds", result.timings.seconds}};
}

nlohmann::ordered_json to_json(const BenchedCase& done) {
    nlohmann::ordered_json json = json_of(done.item);
    json["tokens"] = done.load.tokens;
    json["rows"] = done.load.rows;
    json["active_experts"] = done.load.active_experts;
    json["rotated_sets"] = done.sets;
    json["workspace_bytes"] = {{"forward", done.forward_workspace}, {"dx", done.dx_workspace}};
    json["ceilings"] = {{"tflops", done.ceilings->value.flop_per_second * 1e-12},
                        {"tflops_source", done.ceilings->flop_source},
                        {"gbs", done.ceilings->value.bytes_per_second * 1e-9},
                        {"gbs_source", done.ceilings->bytes_source}};
    json["results"] = nlohmann::ordered_json::array();
    for (const Result& result : done.results) json["results"].push_back(to_json(result));
    return json;
}

void print_text(const BenchedCase& done, bool on_gpu) {
    print_results("{}, {}\n", title_of(done.item), util::counted(done.load.tokens, "token"));
    std::vector<Table::Column> columns{{"op"},
                                       {"median", Align::right},
                                       {"min", Align::right},
                                       {"spread", Align::right},
                                       {"TFLOP/s", Align::right},
                                       {"GB/s", Align::right},
                                       {"floor", Align::right},
                                       {"of floor", Align::right}};
    if (on_gpu) columns.push_back({"host", Align::right});
    Table table(columns);
    for (const Result& result : done.results) {
        const double middle = median(result.timings.seconds);
        std::vector<std::string> cells{std::string(name(result.op)),
                                       seconds_text(middle),
                                       seconds_text(quantile(result.timings.seconds, 0)),
                                       fmt::format("{:.1f}%", 100 * spread(result.timings.seconds)),
                                       fmt::format("{:.3g}", result.work.flop / middle * 1e-12),
                                       fmt::format("{:.4g}", result.work.bytes / middle * 1e-9),
                                       seconds_text(result.floor_seconds),
                                       fmt::format("{:.2f}", result.floor_seconds / middle)};
        if (on_gpu) cells.push_back(seconds_text(median(result.timings.host_seconds)));
        table.add(std::move(cells));
    }
    print_results("{}", table.text());
    print_results("memory while they run: forward {}, dx {}\n\n", bytes_text(done.forward_workspace),
                  bytes_text(done.dx_workspace));
}

/// What is timed unless --op says otherwise.
std::vector<Op> usual_ops(bool lora, bool quantised) {
    std::vector<Op> ops{Op::base, Op::dx};
    if (lora) ops = {Op::base, Op::forward, Op::dx, Op::lora_grad, Op::step};
    if (quantised) ops.push_back(Op::unpack);
    return ops;
}

ExitCode run_bench(const BenchCommand& command) {
    const DeviceChoice device = parse_device(command.device.device);
    const std::vector<NamedProblem> problems = resolve(command.shape, device.backend);
    const bool lora = std::all_of(problems.begin(), problems.end(), [](const auto& p) { return p.problem.R > 0; });
    const bool quantised = std::all_of(problems.begin(), problems.end(),
                                       [](const auto& p) { return p.problem.weights.encoding != Encoding::plain; });
    std::vector<Op> ops = parse_ops(command.ops);
    if (ops.empty()) {
        ops = usual_ops(lora, quantised);
    } else if (!lora &&
               std::any_of(ops.begin(), ops.end(), [](Op op) { return op == Op::lora_grad || op == Op::step; })) {
        throw UsageError("--op: lora_grad and step need a rank of at least 1, got 0");
    }
    const bool unpacking = std::find(ops.begin(), ops.end(), Op::unpack) != ops.end();
    if (unpacking && !quantised) {
        throw UsageError("--op: unpack needs quantised weights; expected --weights with an encoding other than plain");
    }
    const bool activations = std::any_of(ops.begin(), ops.end(),
                                         [](Op op) { return op == Op::activation || op == Op::activation_backward; });
    for (const NamedProblem& item : problems) {
        if (activations && item.problem.N % 2 != 0) {
            throw UsageError(fmt::format("--op: activations need an even N, got {}", item.problem.N));
        }
    }
    std::vector<std::int64_t> tokens = command.shape.tokens;
    if (tokens.empty()) tokens.push_back(device.backend == Backend::cpu ? default_tokens_cpu : default_tokens_gpu);
    if (*std::min_element(tokens.begin(), tokens.end()) < 1) {
        throw UsageError("--tokens: expected at least 1, got 0");
    }
    OperandOptions options = operand_options(command.operands);
    options.unpacking = unpacking;
    options.compared = false;
    options.row_operations = std::any_of(ops.begin(), ops.end(), [](Op op) {
        return op == Op::group || op == Op::combine || op == Op::combine_backward;
    });

    ProgressLine line(stderr);
    Session session(engine_options(command.common, device.backend, device.ordinal, command.device.threads,
                                   [&line](const std::string& text) { line.print(text); }));
    const Protocol protocol = command.sustained ? Protocol::sustained : Protocol::burst;
    Timer timer(session, protocol);
    print_remark("device    {}\nprotocol  {}, routing {}\n", session.device_name(), name(protocol),
                 command.operands.skew);
    std::map<DType, MeasuredCeilings> ceilings;
    std::vector<BenchedCase> cases;
    for (const NamedProblem& item : problems) {
        const DType dtype = item.problem.dtype;
        if (ceilings.count(dtype) == 0) {
            line.announce(0, ops.size(), "ceilings");
            const MeasuredCeilings& made = ceilings[dtype] =
                measure_ceilings(session, timer, dtype, command.ceiling_tflops, command.ceiling_gbs);
            line.finish();
            print_remark("ceilings  {:.4g} TFLOP/s ({}), {:.4g} GB/s ({})\n", made.value.flop_per_second * 1e-12,
                         made.flop_source, made.value.bytes_per_second * 1e-9, made.bytes_source);
        }
        for (const std::int64_t T : tokens) {
            options.T = T;
            cases.push_back(bench_case(session, timer, item, options, ops, ceilings[dtype], line));
            if (!command.common.json) print_text(cases.back(), session.on_gpu());
        }
    }
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("bench");
        document["device"] = session.device_name();
        document["protocol"] = name(protocol);
        document["skew"] = command.operands.skew;
        document["seed"] = command.operands.seed;
        document["cases"] = nlohmann::ordered_json::array();
        for (const BenchedCase& done : cases) document["cases"].push_back(to_json(done));
        print_json(document);
    }
    return ExitCode::ok;
}

}  // namespace

void add_bench(CLI::App& app, Run& run) {
    auto command = std::make_shared<BenchCommand>();
    CLI::App* sub =
        app.add_subcommand("bench", "Time operations and compare them with the least time that they can take");
    sub->footer(bench_footer);
    command->shape.has_device = true;
    add_shape_options(*sub, command->shape, fmt::format("{}, on the CPU {}", default_tokens_gpu, default_tokens_cpu));
    add_list(*sub, "--op", command->ops,
             "Operations: base, forward, dx, lora_grad, step, and unpack if weights are quantised [these]; activation, "
             "activation_backward, route, group, combine, combine_backward",
             "OP,..");
    sub->add_flag("--sustained", command->sustained, "Measure 300 ms after 350 ms back to back, instead of bursts");
    sub->add_option("--ceiling-tflops", command->ceiling_tflops, "Peak speed of products [measured]")
        ->type_name("TFLOP/s")
        ->check(positive_number());
    sub->add_option("--ceiling-gbs", command->ceiling_gbs, "Peak speed of memory [measured]")
        ->type_name("GB/s")
        ->check(positive_number());
    add_operand_options(*sub, command->operands);
    add_device_options(*sub, command->device);
    add_common_options(*sub, command->common);
    sub->callback([command, &run] { run = [command] { return run_bench(*command); }; });
}

}  // namespace smlora::tool
