#include "capi/convert.hpp"

#include <fmt/format.h>

#include <string_view>

namespace smlora::capi {
namespace {

[[noreturn]] void wrong(const std::string& name, std::string_view expected, std::int64_t got) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: expected {}, got {}", name, expected, got));
}

template <class Enum>
Enum to_enum(std::int32_t value, Enum last, const std::string& name) {
    const auto limit = static_cast<std::int32_t>(last);
    if (value < 0 || value > limit) wrong(name, fmt::format("0 to {}", limit), value);
    return static_cast<Enum>(value);
}

bool to_flag(std::int32_t value, const char* name) {
    if (value != 0 && value != 1) wrong(name, "0 or 1", value);
    return value == 1;
}

void check_reserved(std::int32_t value, const char* name) {
    if (value != 0) wrong(name, "0", value);
}

Workspace to_workspace(const smlora_workspace& workspace) { return {workspace.data, workspace.bytes}; }

template <class CArgs, class Args>
void read_activation(const CArgs& a, Args& result) {
    result.activation = to_enum(a.activation, Activation::swiglu_clamped, "activation");
    result.layout = to_enum(a.layout, GateLayout::interleaved, "layout");
    result.alpha = a.alpha;
    result.limit = a.limit;
}

Routing to_routing(const smlora_routing& routing) {
    Routing result;
    result.sorted_expert_idxs = to_tensor(routing.sorted_expert_idxs, "sorted_expert_idxs");
    result.sorted_scattered_idxs = to_tensor(routing.sorted_scattered_idxs, "sorted_scattered_idxs");
    result.expert_offsets = to_tensor(routing.expert_offsets, "expert_offsets");
    return result;
}

/// Nothing for the default.
std::optional<TuningPolicy> to_policy(smlora_tuning tuning) {
    switch (tuning) {
        case SMLORA_TUNING_DEFAULT:
            return std::nullopt;
        case SMLORA_TUNING_FIRST_USE:
            return TuningPolicy::first_use;
        case SMLORA_TUNING_OFF:
            return TuningPolicy::off;
        case SMLORA_TUNING_RECORD_ONLY:
            return TuningPolicy::record_only;
        default:
            wrong("options.tuning", "0 to 3", tuning);
    }
}

}  // namespace

DType to_dtype(smlora_dtype dtype, const char* name) { return to_enum(dtype, DType::int64, name); }

Tensor to_tensor(const smlora_tensor& tensor, const char* name) {
    if (tensor.ndim < 0 || tensor.ndim > Tensor::max_ndim) {
        wrong(fmt::format("{}.ndim", name), fmt::format("0 to {}", Tensor::max_ndim), tensor.ndim);
    }
    Tensor result;
    result.data = tensor.data;
    result.dtype = to_dtype(tensor.dtype, fmt::format("{}.dtype", name).c_str());
    result.ndim = tensor.ndim;
    for (std::size_t i = 0; i < static_cast<std::size_t>(tensor.ndim); ++i) {
        if (tensor.shape[i] < 0) wrong(fmt::format("{}.shape[{}]", name, i), "0 or more", tensor.shape[i]);
        result.shape[i] = tensor.shape[i];
        result.strides[i] = tensor.strides[i];
    }
    return result;
}

Problem to_problem(const smlora_problem* problem, const char* name) {
    const smlora_problem p = read_struct(problem, name);
    check_reserved(p.reserved, "problem.reserved");
    Problem result;
    result.E = p.E;
    result.K = p.K;
    result.N = p.N;
    result.R = p.R;
    result.top_k = p.top_k;
    result.dtype = to_dtype(p.dtype, "problem.dtype");
    result.adapter_dtype = to_dtype(p.adapter_dtype, "problem.adapter_dtype");
    result.gate_dtype = to_dtype(p.gate_dtype, "problem.gate_dtype");
    result.index_dtype = to_dtype(p.index_dtype, "problem.index_dtype");
    result.weight_layout = to_enum(p.weight_layout, WeightLayout::enk, "problem.weight_layout");
    result.x_rows = to_enum(p.x_rows, RowOrder::grouped, "problem.x_rows");
    result.y_rows = to_enum(p.y_rows, RowOrder::grouped, "problem.y_rows");
    result.bias = to_flag(p.bias, "problem.bias");
    result.gates = to_flag(p.gates, "problem.gates");
    return result;
}

EngineOptions to_options(const smlora_engine_options* options) {
    const smlora_engine_options o = read_struct(options, "options", offsetof(smlora_engine_options, shipped_layer));
    EngineOptions result;
    result.backend = to_enum(o.backend, Backend::cpu, "options.backend");
    result.device = o.device;
    if (o.cache_root != nullptr) result.cache_root = o.cache_root;
    if (o.cache_layers != nullptr || o.cache_layer_count > 0) {
        result.cache_layers =
            to_strings<std::filesystem::path>(o.cache_layers, o.cache_layer_count, "options.cache_layers");
    }
    if (o.shipped_layer != nullptr) result.shipped_layer = o.shipped_layer;
    if (o.cache_limit_bytes != 0) result.cache_limit_bytes = o.cache_limit_bytes;
    result.threads = o.threads;
    result.tuning = to_policy(o.tuning);
    if (o.tuning_seconds != 0) result.tuning_seconds = o.tuning_seconds;
    if (o.tuning_memory_bytes != 0) result.tuning_memory_bytes = o.tuning_memory_bytes;
    if (o.log != nullptr) {
        result.log = [log = o.log, user = o.log_user](LogLevel level, std::string_view line) {
            log(static_cast<smlora_log_level>(level), std::string(line).c_str(), user);
        };
    }
    return result;
}

PrewarmOptions to_options(const smlora_prewarm_options& options) {
    check_reserved(options.reserved, "options.reserved");
    PrewarmOptions result;
    // The caller's elements may be longer than this library's struct: step by their own size.
    if (options.problem_count > 0) required(options.problems, "options.problems");
    const auto* element = reinterpret_cast<const char*>(options.problems);
    for (std::size_t i = 0; i < options.problem_count; ++i) {
        const auto* problem = reinterpret_cast<const smlora_problem*>(element);
        result.problems.push_back(to_problem(problem, fmt::format("options.problems[{}]", i).c_str()));
        element += options.problems->struct_size;
    }
    if (options.token_count > 0) {
        required(options.tokens, "options.tokens");
        result.tokens.assign(options.tokens, options.tokens + options.token_count);
    }
    result.archs = to_strings<std::string>(options.archs, options.arch_count, "options.archs");
    result.jobs = options.jobs;
    if (options.activation_count > 0) required(options.activations, "options.activations");
    for (std::size_t i = 0; i < options.activation_count; ++i) {
        const smlora_prewarm_activation& a = options.activations[i];
        const std::string name = fmt::format("options.activations[{}]", i);
        check_reserved(a.reserved, (name + ".reserved").c_str());
        result.activations.push_back({to_enum(a.activation, Activation::swiglu_clamped, name + ".activation"),
                                      to_enum(a.layout, GateLayout::interleaved, name + ".layout"), a.width,
                                      to_dtype(a.dtype, (name + ".dtype").c_str())});
    }
    return result;
}

RouteArgs to_args(const smlora_route_args* args) {
    const smlora_route_args a = read_struct(args, "args");
    RouteArgs result;
    result.top_idx = to_tensor(a.top_idx, "top_idx");
    result.routing = to_routing(a.routing);
    result.workspace = to_workspace(a.workspace);
    return result;
}

GroupArgs to_args(const smlora_group_args* args) {
    const smlora_group_args a = read_struct(args, "args");
    GroupArgs result;
    result.x = to_tensor(a.x, "x");
    result.gates = to_tensor(a.gates, "gates");
    result.routing = to_routing(a.routing);
    result.out = to_tensor(a.out, "out");
    result.workspace = to_workspace(a.workspace);
    return result;
}

CombineArgs to_args(const smlora_combine_args* args) {
    const smlora_combine_args a = read_struct(args, "args");
    CombineArgs result;
    result.y = to_tensor(a.y, "y");
    result.gates = to_tensor(a.gates, "gates");
    result.out = to_tensor(a.out, "out");
    result.workspace = to_workspace(a.workspace);
    return result;
}

CombineBackwardArgs to_args(const smlora_combine_backward_args* args) {
    const smlora_combine_backward_args a = read_struct(args, "args");
    CombineBackwardArgs result;
    result.dout = to_tensor(a.dout, "dout");
    result.y = to_tensor(a.y, "y");
    result.gates = to_tensor(a.gates, "gates");
    result.dy = to_tensor(a.dy, "dy");
    result.dgates = to_tensor(a.dgates, "dgates");
    result.workspace = to_workspace(a.workspace);
    return result;
}

ActivationArgs to_args(const smlora_activation_args* args) {
    const smlora_activation_args a = read_struct(args, "args");
    ActivationArgs result;
    result.h = to_tensor(a.h, "h");
    result.a = to_tensor(a.a, "a");
    read_activation(a, result);
    return result;
}

ActivationBackwardArgs to_args(const smlora_activation_backward_args* args) {
    const smlora_activation_backward_args a = read_struct(args, "args");
    ActivationBackwardArgs result;
    result.h = to_tensor(a.h, "h");
    result.da = to_tensor(a.da, "da");
    result.dh = to_tensor(a.dh, "dh");
    result.a = to_tensor(a.a, "a");
    read_activation(a, result);
    return result;
}

ForwardArgs to_args(const smlora_forward_args* args) {
    const smlora_forward_args a = read_struct(args, "args");
    check_reserved(a.reserved, "args.reserved");
    ForwardArgs result;
    result.x = to_tensor(a.x, "x");
    result.W = to_tensor(a.W, "W");
    result.A = to_tensor(a.A, "A");
    result.B = to_tensor(a.B, "B");
    result.bias = to_tensor(a.bias, "bias");
    result.gates = to_tensor(a.gates, "gates");
    result.routing = to_routing(a.routing);
    result.scaling = a.scaling;
    result.y = to_tensor(a.y, "y");
    result.xa = to_tensor(a.xa, "xa");
    result.workspace = to_workspace(a.workspace);
    return result;
}

BackwardInputArgs to_args(const smlora_backward_input_args* args) {
    const smlora_backward_input_args a = read_struct(args, "args");
    check_reserved(a.reserved, "args.reserved");
    BackwardInputArgs result;
    result.dy = to_tensor(a.dy, "dy");
    result.W = to_tensor(a.W, "W");
    result.A = to_tensor(a.A, "A");
    result.B = to_tensor(a.B, "B");
    result.gates = to_tensor(a.gates, "gates");
    result.routing = to_routing(a.routing);
    result.scaling = a.scaling;
    result.dx = to_tensor(a.dx, "dx");
    result.yb = to_tensor(a.yb, "yb");
    result.dgates = to_tensor(a.dgates, "dgates");
    result.x = to_tensor(a.x, "x");
    result.bias = to_tensor(a.bias, "bias");
    result.workspace = to_workspace(a.workspace);
    return result;
}

BackwardLoraArgs to_args(const smlora_backward_lora_args* args) {
    const smlora_backward_lora_args a = read_struct(args, "args");
    check_reserved(a.reserved, "args.reserved");
    BackwardLoraArgs result;
    result.x = to_tensor(a.x, "x");
    result.dy = to_tensor(a.dy, "dy");
    result.A = to_tensor(a.A, "A");
    result.B = to_tensor(a.B, "B");
    result.gates = to_tensor(a.gates, "gates");
    result.routing = to_routing(a.routing);
    result.scaling = a.scaling;
    result.xa = to_tensor(a.xa, "xa");
    result.yb = to_tensor(a.yb, "yb");
    result.dA = to_tensor(a.dA, "dA");
    result.dB = to_tensor(a.dB, "dB");
    result.workspace = to_workspace(a.workspace);
    return result;
}

}  // namespace smlora::capi
