#include "smlora_tune/shape_options.hpp"

#include "limits.hpp"
#include "models/hf_config.hpp"
#include "models/hf_quantization.hpp"
#include "models/model_table.hpp"
#include "smlora_tune/command.hpp"
#include "smlora_tune/exit_code.hpp"
#include "smlora_tune/list_option.hpp"
#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/weights_option.hpp"
#include "util/counted.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <charconv>
#include <string_view>
#include <utility>

namespace smlora::tool {
namespace {

constexpr std::int64_t default_rank = 16;
// More than any memory holds the rows of; rows of all experts can still be counted.
constexpr std::int64_t most_tokens = std::int64_t{1} << 40;

const std::vector<std::string> dtype_names{"bf16", "fp16", "fp32", "fp64"};
const std::vector<std::string> row_order_names{"token", "scattered", "grouped"};

RowOrder row_order_from_name(const std::string& text) {
    for (const RowOrder order : {RowOrder::token, RowOrder::scattered, RowOrder::grouped}) {
        if (name(order) == text) return order;
    }
    throw UsageError(fmt::format("row order: expected one of {}, got '{}'", fmt::join(row_order_names, ", "), text));
}

/// What the options override in a problem.
Problem with_options(Problem problem, const ShapeOptions& options) {
    if (!options.dtype.empty()) {
        problem.dtype = dtype_from_name(options.dtype);
        problem.adapter_dtype = problem.dtype;
        // Gates are computed in fp32 by the usual routers; the CPU's fp64 is for references, whose gates are exact too.
        if (problem.dtype == DType::fp64) problem.gate_dtype = DType::fp64;
    }
    if (!options.adapter_dtype.empty()) problem.adapter_dtype = dtype_from_name(options.adapter_dtype);
    if (!options.gate_dtype.empty()) problem.gate_dtype = dtype_from_name(options.gate_dtype);
    if (!options.index_dtype.empty()) problem.index_dtype = dtype_from_name(options.index_dtype);
    if (!options.weight_layout.empty()) {
        problem.weight_layout = options.weight_layout == "ekn" ? WeightLayout::ekn : WeightLayout::enk;
    }
    if (!options.x_rows.empty()) problem.x_rows = row_order_from_name(options.x_rows);
    if (!options.y_rows.empty()) {
        problem.y_rows = row_order_from_name(options.y_rows);
        if (problem.y_rows != RowOrder::token) problem.gates = false;
    }
    problem.bias = problem.bias || options.bias;
    problem.gates = problem.gates || options.gates;
    return problem;
}

/// A projection on its own. Checkpoints store quantised weights as [E, N, K].
Problem problem_of(const std::string& shape, const WeightFormat& weights) {
    Problem problem = parse_shape(shape);
    problem.weights = weights;
    if (problem.weights.encoding != Encoding::plain) problem.weight_layout = WeightLayout::enk;
    return problem;
}

models::ModelShape known_model(const std::string& name) {
    try {
        return models::model_by_name(name);
    } catch (const Error& error) {
        throw UsageError(fmt::format("--{} (--config)", error.what()));
    }
}

/// What a config says, in a line on stderr if it says anything.
models::StoredExperts weights_of_config(const std::string& path) {
    models::StoredExperts stored = [&] {
        try {
            return models::read_hf_quantization(path);
        } catch (const Error& error) {
            if (error.code() != ErrorCode::invalid_argument) throw;
            throw UsageError(fmt::format("{}; --weights says how the experts are stored", error.what()));
        }
    }();
    if (!stored.source.empty()) {
        print_remark(
            "{}: {}: weights are {}{}{}\n", path, stored.source, to_string(stored.format),
            stored.other_scales.empty() ? "" : "; " + scales_text(stored.format, stored.other_scales),
            stored.assumption.empty() ? "" : fmt::format("; {}: give --weights plain for that", stored.assumption));
    }
    return stored;
}

void add_model(std::vector<NamedProblem>& problems, models::ModelShape model, const models::StoredExperts& weights,
               const ShapeOptions& options) {
    model.weights = weights.format;
    const models::ExpertParallelism& parallelism = options.parallelism;
    for (const models::Projection& projection :
         models::projections_of_rank(model, options.rank.value_or(default_rank), parallelism)) {
        const bool down = projection.name == "down";
        if (options.projection != "both" && (options.projection == "down") != down) continue;
        NamedProblem& item = problems.emplace_back();
        item.name = fmt::format("{} {}", model.name, projection.name);
        item.problem = projection.problem;
        item.other_scales = weights.other_scales;
        item.is_of_a_model = true;
        item.gates = model.gates;
        if (parallelism.ranks > 1 && !parallelism.shares_tokens) item.rows_per_token = model.top_k;
        if (down) continue;
        item.has_own_activation = !model.activation;
        if (model.gated) item.activation = {model.activation.value_or(Activation::swiglu), model.gate_layout};
    }
}

/// With the name of what does not fit.
void validate_named(const NamedProblem& item) {
    try {
        validate(item.problem);
    } catch (const Error& error) {
        throw UsageError(item.name.empty() ? error.what() : fmt::format("{}: {}", item.name, error.what()));
    }
}

}  // namespace

void add_shape_options(CLI::App& app, ShapeOptions& options, const std::string& default_tokens) {
    const std::string group = "Problem";
    app.add_option("--shape", options.shapes,
                   "One projection: experts, inputs, outputs, LoRA rank, experts per token; repeatable")
        ->type_name("E,K,N,R,top_k")
        ->allow_extra_args(false)
        ->group(group);
    app.add_option("--model", options.models,
                   "Both projections of a known model (smlora-tune models lists them); repeatable")
        ->type_name("NAME")
        ->allow_extra_args(false)
        ->group(group);
    app.add_option("--config", options.configs,
                   "Both projections of any other Hugging Face model, from its config.json, which also says how its "
                   "experts are stored; repeatable")
        ->type_name("PATH")
        ->allow_extra_args(false)
        ->group(group);
    app.add_option("--projection", options.projection, "Which of them: gate_up, down or both")
        ->type_name("WHICH")
        ->check(CLI::IsMember({"gate_up", "down", "both"}).description(""))
        ->capture_default_str()
        ->group(group);
    app.add_option("--rank", options.rank, fmt::format("LoRA rank for --model and --config [{}]", default_rank))
        ->type_name("R")
        ->check(whole_number(0, max_rank))
        ->group(group);
    add_list(app, "--tokens", options.tokens, fmt::format("Numbers of tokens [{}]", default_tokens), "T,..",
             most_tokens)
        ->group(group);
    app.add_option("--dtype", options.dtype,
                   options.has_device ? "Type of x, W and y: bf16, fp16, fp32, or fp64 with --device cpu"
                                      : "Type of x, W and y: bf16, fp16 or fp32")
        ->check(CLI::IsMember(dtype_names).description(""))
        ->type_name("TYPE")
        ->group(group);
    app.add_option("--adapter-dtype", options.adapter_dtype,
                   "Type of A and B: that of --dtype or fp32 [that of --dtype]")
        ->check(CLI::IsMember(dtype_names).description(""))
        ->type_name("TYPE")
        ->group(group);
    app.add_option("--gate-dtype", options.gate_dtype, "Type of the gates: that of --dtype or fp32 [fp32]")
        ->check(CLI::IsMember(dtype_names).description(""))
        ->type_name("TYPE")
        ->group(group);
    app.add_option("--index-dtype", options.index_dtype, "Type of the routing: int32 or int64 [int32]")
        ->check(CLI::IsMember({"int32", "int64"}).description(""))
        ->type_name("TYPE")
        ->group(group);
    app.add_option("--weight-layout", options.weight_layout,
                   "W as [E, K, N] or [E, N, K] [ekn for --shape, or enk if quantised; else as the model stores it]")
        ->check(CLI::IsMember({"ekn", "enk"}).description(""))
        ->type_name("LAYOUT")
        ->group(group);
    app.add_option("--x-rows", options.x_rows, "Rows of x: token, scattered or grouped [token for --shape]")
        ->check(CLI::IsMember(row_order_names).description(""))
        ->type_name("ORDER")
        ->group(group);
    app.add_option("--y-rows", options.y_rows, "Rows of y: token, scattered or grouped [scattered for --shape]")
        ->check(CLI::IsMember(row_order_names).description(""))
        ->type_name("ORDER")
        ->group(group);
    app.add_option("--weights", options.weights,
                   "How W is stored: plain, nf4, fp4, int8, mxfp4, fp8, mxfp8, nvfp4 or int4 [what --config says, else "
                   "plain]\nWords may follow, each after a colon, such as nf4:128:double:\n"
                   "  a number  the block of nf4 and fp4 [64], fp8 [128] or int4 [32]\n"
                   "  a type    that of the scales of mxfp4 and mxfp8 [e8m0], fp8 [fp32] or int4 [bf16]\n"
                   "  double    nf4, fp4: the scales are quantised, too\n"
                   "  divisor   nvfp4: the global scale divides, as in compressed-tensors\n"
                   "  parts2    fp8, nvfp4: gate and up were quantised apart; known of --model and --config\n"
                   "  arranged  all but int8: the scales are in the order of arrange_scales")
        ->type_name("ENCODING[:..]")
        ->group(group);
    app.add_flag("--bias", options.bias, "Add a bias")->group(group);
    app.add_flag("--gates", options.gates, "Weight the experts of a token by gates; needs --y-rows token")
        ->group(group);
}

std::string scales_text(const WeightFormat& format, const std::vector<DType>& other_scales) {
    std::vector<std::string_view> names{name(format.scales)};
    for (const DType dtype : other_scales) names.push_back(name(dtype));
    return fmt::format("the scales are {}: prewarm compiles for each", fmt::join(names, " or "));
}

std::string title_of(const NamedProblem& item) {
    const WeightFormat& weights = item.problem.weights;
    // A name that is the problem's text says it already.
    if (weights.encoding == Encoding::plain || item.name == to_string(item.problem)) return item.name;
    return fmt::format("{} weights: {}", item.name, to_string(weights));
}

nlohmann::ordered_json json_of(const NamedProblem& item) {
    return {{"name", item.name}, {"problem", to_string(item.problem)}, {"weights", to_string(item.problem.weights)}};
}

std::string case_text(const NamedProblem& item, std::int64_t T, std::size_t works) {
    return fmt::format("{}, {}{}", title_of(item), util::counted(T, "token"),
                       works == 0 ? ": there is one kernel for each purpose, and nothing to choose" : "");
}

std::string problem_text(const NamedProblem& item) {
    const std::string text = to_string(item.problem);
    return item.name == text ? text : fmt::format("{}: {}", item.name, text);
}

Problem parse_shape(const std::string& text) {
    std::array<std::int64_t, 5> numbers{};
    const char* next = text.data();
    const char* const end = text.data() + text.size();
    bool good = true;
    for (std::size_t i = 0; i < numbers.size() && good; ++i) {
        if (i > 0) {
            good = next != end && *next == ',';
            if (good) ++next;
        }
        const auto [stop, error] = std::from_chars(next, end, numbers[i]);
        good = good && error == std::errc{};
        next = stop;
    }
    if (!good || next != end) {
        throw UsageError(
            fmt::format("--shape: expected E,K,N,R,top_k, five whole numbers without blanks such as "
                        "128,2048,1536,16,8, got '{}'",
                        text));
    }
    Problem problem;
    problem.E = numbers[0];
    problem.K = numbers[1];
    problem.N = numbers[2];
    problem.R = numbers[3];
    problem.top_k = numbers[4];
    return problem;
}

std::vector<NamedProblem> resolve(const ShapeOptions& options, Backend backend) {
    std::vector<NamedProblem> problems;
    try {
        const models::StoredExperts weights =
            options.weights.empty() ? models::StoredExperts() : parse_weights(options.weights);
        for (const std::string& shape : options.shapes) {
            problems.push_back({"", problem_of(shape, weights.format)});
            problems.back().other_scales = weights.other_scales;
            problems.back().activation.emplace();
        }
        if (!problems.empty() && options.rank) {
            throw UsageError(
                "--rank: --shape has its own rank, its fourth number; --rank goes with --model and --config");
        }
        for (const std::string& model : options.models) {
            add_model(problems, known_model(model), weights, options);
        }
        for (const std::string& path : options.configs) {
            const models::ModelShape model = models::read_hf_config(path);
            add_model(problems, model, options.weights.empty() ? weights_of_config(path) : weights, options);
        }
        if (problems.empty()) {
            throw UsageError("expected --shape E,K,N,R,top_k, --model NAME or --config PATH to say what to work on");
        }
        for (NamedProblem& item : problems) {
            item.problem = with_options(item.problem, options);
            validate_named(item);
            // A rank of expert parallelism may have fewer than a token has in all.
            if (item.problem.top_k > item.problem.E * options.parallelism.ranks) {
                throw UsageError(
                    fmt::format("{}: top_k: expected at most E = {}, as a token has that many experts, got {}",
                                item.name.empty() ? "--shape" : item.name, item.problem.E, item.problem.top_k));
            }
            if (item.problem.dtype == DType::fp64 && backend != Backend::cpu) {
                throw UsageError(fmt::format("--dtype: fp64 is for the CPU backend; expected bf16, fp16 or fp32{}",
                                             options.has_device ? ", or --device cpu" : ""));
            }
            // Rows that a token's choices are summed into are the model's, not an expert's.
            if (item.problem.N % 2 != 0 || item.problem.y_rows == RowOrder::token) item.activation.reset();
            if (item.activation) {
                item.activation->width = item.problem.N / 2;
                item.activation->dtype = item.problem.dtype;
            }
            if (item.name.empty()) item.name = to_string(item.problem);
        }
    } catch (const Error& error) {
        throw UsageError(error.what());
    }
    return problems;
}

}  // namespace smlora::tool
