#include "smlora_tune/operands.hpp"

#include <set>

namespace smlora::tool {
namespace {

using workload::Array;

// Of larger tensors on a GPU the host keeps no copy: weights of many gigabytes would have to fit into its memory too.
constexpr std::size_t most_kept_bytes = std::size_t{64} << 20;

workload::Case case_of(const Problem& problem, const OperandOptions& options) {
    return {.problem = problem, .T = options.T, .adapter = options.adapter, .decoded = options.compared};
}

}  // namespace

Operands::Operands(const Engine& engine, const Problem& p, const OperandOptions& options)
    : top_idx_host(tuning::random_top_idx(options.T, p.top_k, p.E, options.skew, options.left_out, options.seed)),
      inputs(engine, case_of(p, options), workload::draws_of(options.seed), top_idx_host),
      top_idx(engine, p.index_dtype, {{options.T, p.top_k}}),
      y(inputs.make_y()),
      dx(inputs.make_dx()) {
    const workload::Draws draws = workload::draws_of(options.seed);
    top_idx.fill([&](std::int64_t f) { return static_cast<double>(top_idx_host[workload::index(f)]); });
    if (p.N % 2 == 0) {
        a = inputs.rows_of(p.y_rows, p.N / 2);
        a.fill_normal(draws("a"));
    }
    if (options.row_operations) {
        grouped_x = inputs.rows_of(RowOrder::grouped, p.K);
        rows = inputs.rows_of(RowOrder::scattered, p.N);
        rows.fill_normal(draws("rows"));
        drows = inputs.rows_of(RowOrder::scattered, p.N);
        sums = inputs.rows_of(RowOrder::token, p.N);
        sums.fill_normal(draws("sums"));
        row_gates = workload::random_gates(engine, p, options.T, draws("row gates"));
        row_dgates = inputs.make_dgates();
    }
    if (options.unpacking && inputs.encoded) {
        const Weight& W = inputs.encoded->weight();
        unpacked = Array(engine, p.dtype, {{W.E, W.rows, W.columns}});
    }
    if (p.gates) dgates = inputs.make_dgates();
    if (p.R > 0) {
        xa = inputs.make_ranked();
        yb = inputs.make_ranked();
        dA = inputs.make_dA();
        dB = inputs.make_dB();
    }
    for (Array* array : {&inputs.x, &inputs.W, &inputs.A, &inputs.B, &inputs.dy, &a, &rows, &sums}) {
        if (array->memory().bytes() > most_kept_bytes) array->drop_host_copy();
    }
}

RouteArgs Operands::route_args() const {
    RouteArgs args;
    args.top_idx = top_idx.view();
    args.routing = inputs.routing.view();
    return args;
}

ForwardArgs Operands::forward_args() const {
    ForwardArgs args = inputs.forward_args();
    args.y = y.view();
    if (xa.given()) args.xa = inputs.ranked_view(xa);
    return args;
}

BackwardInputArgs Operands::backward_input_args() const {
    BackwardInputArgs args = inputs.backward_input_args();
    args.dx = dx.view();
    if (yb.given()) args.yb = inputs.ranked_view(yb);
    if (dgates.given()) {
        args.dgates = dgates.view();
        args.x = inputs.x.view();
        args.bias = inputs.bias.view();
    }
    return args;
}

BackwardLoraArgs Operands::backward_lora_args() const {
    BackwardLoraArgs args = inputs.backward_lora_args();
    args.xa = inputs.ranked_view(xa);
    args.yb = inputs.ranked_view(yb);
    args.dA = dA.view();
    args.dB = dB.view();
    return args;
}

ActivationArgs Operands::activation_args() const {
    ActivationArgs args;
    args.h = inputs.dy.view();
    args.a = a.view();
    return args;
}

ActivationBackwardArgs Operands::activation_backward_args() const {
    ActivationBackwardArgs args;
    args.h = inputs.dy.view();
    args.da = a.view();
    args.dh = y.view();
    return args;
}

GroupArgs Operands::group_args() const {
    GroupArgs args;
    args.x = inputs.x.view();
    args.routing = inputs.routing.view();
    args.out = grouped_x.view();
    return args;
}

CombineArgs Operands::combine_args() const {
    CombineArgs args;
    args.y = rows.view();
    args.gates = row_gates.view();
    args.out = sums.view();
    return args;
}

CombineBackwardArgs Operands::combine_backward_args() const {
    CombineBackwardArgs args;
    args.dout = sums.view();
    args.y = rows.view();
    args.gates = row_gates.view();
    args.dy = drows.view();
    args.dgates = row_dgates.view();
    return args;
}

DequantizeArgs Operands::dequantize_args() const { return {inputs.weight(), unpacked.view()}; }

Load Operands::load() const {
    Load result;
    result.tokens = inputs.T;
    std::set<std::int64_t> active;
    for (const std::int64_t e : top_idx_host) {
        if (e < 0) continue;
        ++result.rows;
        active.insert(e);
    }
    result.active_experts = static_cast<std::int64_t>(active.size());
    return result;
}

std::size_t Operands::bytes() const {
    std::size_t sum = inputs.encoded ? inputs.encoded->bytes() : 0;
    for (const Array* array : {&top_idx,
                               &inputs.routing.sorted_expert_idxs,
                               &inputs.routing.sorted_scattered_idxs,
                               &inputs.routing.expert_offsets,
                               &inputs.x,
                               &inputs.W,
                               &unpacked,
                               &inputs.A,
                               &inputs.B,
                               &inputs.bias,
                               &inputs.gates,
                               &inputs.dy,
                               &y,
                               &xa,
                               &dx,
                               &yb,
                               &dgates,
                               &dA,
                               &dB,
                               &a,
                               &grouped_x,
                               &rows,
                               &drows,
                               &sums,
                               &row_gates,
                               &row_dgates}) {
        sum += array->memory().bytes();
    }
    return sum;
}

}  // namespace smlora::tool
