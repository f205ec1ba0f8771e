#include "smlora_tune/operands.hpp"

#include "smlora_tune/elements.hpp"

#include <array>
#include <cmath>
#include <set>

namespace smlora::tool {
namespace {

// Elements from the first to behind the last of a tensor without gaps, whatever the order of its strides.
std::size_t dense_bytes(const Tensor& tensor) {
    return static_cast<std::size_t>(tensor.numel()) * size_of(tensor.dtype);
}

void allocate(const Engine& engine, Array& array, Tensor tensor, std::size_t bytes) {
    array.buffer = Buffer(engine, bytes);
    tensor.data = array.buffer.data();
    array.tensor = tensor;
}

void allocate(const Engine& engine, Array& array, const Tensor& tensor) {
    allocate(engine, array, tensor, dense_bytes(tensor));
}

Tensor b_view(const Problem& p, BLayout layout) {
    switch (layout) {
        case BLayout::enr:
            return {nullptr, p.adapter_dtype, {p.E, p.N, p.R}};
        case BLayout::ner:
            return {nullptr, p.adapter_dtype, {p.E, p.N, p.R}, {p.R, p.E * p.R, 1}};
        case BLayout::nre:
            return {nullptr, p.adapter_dtype, {p.E, p.N, p.R}, {1, p.E * p.R, p.E}};
    }
    return {};
}

double inverse_root(std::int64_t n) { return 1.0 / std::sqrt(static_cast<double>(n)); }

}  // namespace

Operands::Operands(const Engine& engine, const Problem& problem_, const OperandOptions& options)
    : problem(problem_), T(options.T), M(options.T * problem_.top_k) {
    const Problem& p = problem;
    const std::int64_t rows_x = p.x_rows == RowOrder::token ? T : M;
    const std::int64_t rows_y = p.y_rows == RowOrder::token ? T : M;
    const auto random = [&](Array& array, Distribution distribution, double scale, std::string_view role) {
        fill_random(array.buffer, array.tensor.numel(), array.tensor.dtype, distribution, scale, options.seed, role);
    };

    top_idx_host = random_top_idx(T, p.top_k, p.E, options.skew, options.left_out, options.seed);
    allocate(engine, top_idx, {nullptr, p.index_dtype, {T, p.top_k}});
    std::vector<unsigned char> encoded(top_idx.buffer.bytes());
    for (std::size_t i = 0; i < top_idx_host.size(); ++i) {
        set_integer(encoded.data(), i, p.index_dtype, top_idx_host[i]);
    }
    top_idx.buffer.copy_from_host(encoded.data(), encoded.size());
    allocate(engine, sorted_expert_idxs, {nullptr, p.index_dtype, {M}});
    allocate(engine, sorted_scattered_idxs, {nullptr, p.index_dtype, {M}});
    allocate(engine, expert_offsets, {nullptr, p.index_dtype, {p.E}});

    allocate(engine, x, {nullptr, p.dtype, {rows_x, p.K}});
    random(x, Distribution::normal, 1, "x");
    allocate(engine, W,
             p.weight_layout == WeightLayout::ekn ? Tensor(nullptr, p.dtype, {p.E, p.K, p.N})
                                                  : Tensor(nullptr, p.dtype, {p.E, p.N, p.K}));
    random(W, Distribution::normal, inverse_root(p.K), "W");
    allocate(engine, dy, {nullptr, p.dtype, {rows_y, p.N}});
    random(dy, Distribution::normal, 1, "dy");
    allocate(engine, y, {nullptr, p.dtype, {rows_y, p.N}});
    allocate(engine, dx, {nullptr, p.dtype, {rows_x, p.K}});
    if (p.N % 2 == 0) {
        allocate(engine, a, {nullptr, p.dtype, {rows_y, p.N / 2}});
        random(a, Distribution::normal, 1, "a");
    }
    if (options.row_operations) {
        allocate(engine, grouped_x, {nullptr, p.dtype, {M, p.K}});
        allocate(engine, rows, {nullptr, p.dtype, {M, p.N}});
        random(rows, Distribution::normal, 1, "rows");
        allocate(engine, drows, {nullptr, p.dtype, {M, p.N}});
        allocate(engine, sums, {nullptr, p.dtype, {T, p.N}});
        random(sums, Distribution::normal, 1, "sums");
        allocate(engine, row_gates, {nullptr, p.gate_dtype, {T, p.top_k}});
        random(row_gates, Distribution::positive, 1, "row gates");
        allocate(engine, row_dgates, {nullptr, p.gate_dtype, {T, p.top_k}});
    }
    if (p.bias) {
        allocate(engine, bias, {nullptr, p.dtype, {p.E, p.N}});
        random(bias, Distribution::normal, 1, "bias");
    }
    if (p.gates) {
        allocate(engine, gates, {nullptr, p.gate_dtype, {T, p.top_k}});
        random(gates, Distribution::positive, 1, "gates");
        allocate(engine, dgates, {nullptr, p.gate_dtype, {T, p.top_k}});
    }
    if (p.R > 0) {
        const std::int64_t stride = padded_rank(p);
        const auto padded = static_cast<std::size_t>(M * stride) * size_of(p.dtype);
        allocate(engine, A, {nullptr, p.adapter_dtype, {p.E, p.R, p.K}});
        random(A, Distribution::normal, inverse_root(p.K), "A");
        allocate(engine, B, b_view(p, options.b_layout));
        random(B, Distribution::normal, inverse_root(p.R) / static_cast<double>(scaling), "B");
        allocate(engine, xa, {nullptr, p.dtype, {M, p.R}, {stride, 1}}, padded);
        allocate(engine, yb, {nullptr, p.dtype, {M, p.R}, {stride, 1}}, padded);
        allocate(engine, dA, {nullptr, p.adapter_dtype, {p.E, p.R, p.K}});
        allocate(engine, dB, b_view(p, options.b_layout));
    }
}

Routing Operands::routing() const {
    return {sorted_expert_idxs.tensor, sorted_scattered_idxs.tensor, expert_offsets.tensor};
}

RouteArgs Operands::route_args() const {
    RouteArgs args;
    args.top_idx = top_idx.tensor;
    args.routing = routing();
    return args;
}

ForwardArgs Operands::forward_args() const {
    ForwardArgs args;
    args.x = x.tensor;
    args.W = W.tensor;
    args.A = A.tensor;
    args.B = B.tensor;
    args.bias = bias.tensor;
    args.gates = gates.tensor;
    args.routing = routing();
    args.scaling = scaling;
    args.y = y.tensor;
    args.xa = xa.tensor;
    return args;
}

BackwardInputArgs Operands::backward_input_args() const {
    BackwardInputArgs args;
    args.dy = dy.tensor;
    args.W = W.tensor;
    args.A = A.tensor;
    args.B = B.tensor;
    args.gates = gates.tensor;
    args.routing = routing();
    args.scaling = scaling;
    args.dx = dx.tensor;
    args.yb = yb.tensor;
    if (problem.gates) {
        args.dgates = dgates.tensor;
        args.x = x.tensor;
        args.bias = bias.tensor;
    }
    return args;
}

BackwardLoraArgs Operands::backward_lora_args() const {
    BackwardLoraArgs args;
    args.x = x.tensor;
    args.dy = dy.tensor;
    args.A = A.tensor;
    args.B = B.tensor;
    args.gates = gates.tensor;
    args.routing = routing();
    args.scaling = scaling;
    args.xa = xa.tensor;
    args.yb = yb.tensor;
    args.dA = dA.tensor;
    args.dB = dB.tensor;
    return args;
}

ActivationArgs Operands::activation_args() const {
    ActivationArgs args;
    args.h = dy.tensor;
    args.a = a.tensor;
    return args;
}

ActivationBackwardArgs Operands::activation_backward_args() const {
    ActivationBackwardArgs args;
    args.h = dy.tensor;
    args.da = a.tensor;
    args.dh = y.tensor;
    return args;
}

GroupArgs Operands::group_args() const {
    GroupArgs args;
    args.x = x.tensor;
    args.routing = routing();
    args.out = grouped_x.tensor;
    return args;
}

CombineArgs Operands::combine_args() const {
    CombineArgs args;
    args.y = rows.tensor;
    args.gates = row_gates.tensor;
    args.out = sums.tensor;
    return args;
}

CombineBackwardArgs Operands::combine_backward_args() const {
    CombineBackwardArgs args;
    args.dout = sums.tensor;
    args.y = rows.tensor;
    args.gates = row_gates.tensor;
    args.dy = drows.tensor;
    args.dgates = row_dgates.tensor;
    return args;
}

Load Operands::load() const {
    Load result;
    result.tokens = T;
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
    std::size_t sum = 0;
    for (const Array* array : {&top_idx,
                               &sorted_expert_idxs,
                               &sorted_scattered_idxs,
                               &expert_offsets,
                               &x,
                               &W,
                               &A,
                               &B,
                               &bias,
                               &gates,
                               &dy,
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
        sum += array->buffer.bytes();
    }
    return sum;
}

}  // namespace smlora::tool
