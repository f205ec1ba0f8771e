// Which problems a command works on: --shape, --model and --config, and what goes with them.
#pragma once

#include "models/model_shape.hpp"

#include <smlora/engine.hpp>
#include <smlora/prewarm.hpp>
#include <smlora/problem.hpp>

#include <CLI/App.hpp>
#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace smlora::tool {

struct ShapeOptions {
    std::vector<std::string> shapes;
    std::vector<std::string> models;
    std::vector<std::string> configs;
    std::string projection = "both";
    std::optional<std::int64_t> rank;
    std::vector<std::int64_t> tokens;
    // Empty: what --model or --config says; for --shape the defaults of Problem.
    std::string dtype;
    std::string adapter_dtype;
    std::string gate_dtype;
    std::string index_dtype;
    std::string weight_layout;
    std::string x_rows;
    std::string y_rows;
    std::string weights;  ///< empty: what --config says, else plain
    bool bias = false;
    bool gates = false;
    models::ExpertParallelism parallelism;  ///< of --model and --config
    bool has_device = false;  ///< the command has the option --device, and so can compute in fp64, on the CPU
};

/// What verify and bench take without --tokens.
constexpr std::int64_t default_tokens_gpu = 2048;
constexpr std::int64_t default_tokens_cpu = 128;

/// `default_tokens`: what the help says is used when --tokens is not given. `options.has_device` must be set before.
void add_shape_options(CLI::App& app, ShapeOptions& options, const std::string& default_tokens);

struct NamedProblem {
    std::string name;  ///< "qwen3-30b-a3b gate_up"; for --shape the text of the problem
    Problem problem;
    /// Follows the projection; nothing follows a down projection.
    std::optional<PrewarmActivation> activation = {};
    std::vector<DType> other_scales = {};  ///< of weights, where nothing says that they have those of `problem`
    bool is_of_a_model = false;            ///< of --model or --config
    models::GateType gates = models::GateType::model;  ///< the type of the router's
    bool has_own_activation = false;                   ///< of a model whose code computes it, instead of `activation`
    std::int64_t rows_per_token = 1;  ///< that arrive at the experts of this rank, on average if it has a part of them
};

/// "the scales are fp32 or bf16: prewarm compiles for each", with the type of the format first.
[[nodiscard]] std::string scales_text(const WeightFormat& format, const std::vector<DType>& other_scales);

/// "olmoe gate_up"; of quantised weights "olmoe gate_up weights: nf4 block 64".
[[nodiscard]] std::string title_of(const NamedProblem& item);

/// Name, problem and weights, to be filled further.
[[nodiscard]] nlohmann::ordered_json json_of(const NamedProblem& item);

/// "olmoe gate_up, 2048 tokens", and that there is nothing to choose if none of its kernels has alternatives.
[[nodiscard]] std::string case_text(const NamedProblem& item, std::int64_t T, std::size_t works);

/// "olmoe gate_up: E64 K2048 .."; the problem alone where that is its name.
[[nodiscard]] std::string problem_text(const NamedProblem& item);

/// "E,K,N,R,top_k" with token -> scattered rows. Throws UsageError.
[[nodiscard]] Problem parse_shape(const std::string& text);

/// The problems in the order of the command line, validated for `backend`. What a --config says of its weights is told
/// on stderr. Throws UsageError.
[[nodiscard]] std::vector<NamedProblem> resolve(const ShapeOptions& options, Backend backend);

}  // namespace smlora::tool
