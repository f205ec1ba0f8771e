#include "workload/projection.hpp"

#include <cmath>
#include <tuple>

namespace smlora::workload {
namespace {

std::vector<std::int64_t> strides_of_A(const Case& c) {
    const auto [E, R, K] = std::tuple(c.problem.E, c.problem.R, c.problem.K);
    switch (c.adapter) {
        case AdapterLayout::transposed:
        case AdapterLayout::peft_transposed:
            return {R, 1, E * R};
        case AdapterLayout::gapped:
            return {R * (K + 3), K + 3, 1};
        default:
            return {R * K, K, 1};
    }
}

std::vector<std::int64_t> strides_of_B(const Case& c) {
    const auto [E, R, N] = std::tuple(c.problem.E, c.problem.R, c.problem.N);
    switch (c.adapter) {
        case AdapterLayout::seed:
            return {R, E * R, 1};
        case AdapterLayout::contiguous:
            return {N * R, R, 1};
        case AdapterLayout::peft:
            return {1, E * R, E};
        case AdapterLayout::transposed:
            return {R * N, 1, N};
        case AdapterLayout::peft_transposed:
            return {N, 1, E * N};
        case AdapterLayout::gapped:
            return {N * (R + 5), R + 5, 1};
    }
    return {};
}

/// The inputs that all three operations have.
template <class Args>
Args adapted(const Projection& p) {
    Args args;
    args.A = p.A.view();
    args.B = p.B.view();
    args.gates = p.gates.view();
    args.routing = p.routing.view();
    args.scaling = p.spec.scaling;
    return args;
}

double inverse_root(std::int64_t n) { return 1 / std::sqrt(static_cast<double>(n)); }

}  // namespace

RoutingArrays::RoutingArrays(const Engine& engine, DType dtype, const HostRouting& routing) {
    const auto array_of = [&](const std::vector<std::int64_t>& values) {
        Array array(engine, dtype, {{static_cast<std::int64_t>(values.size())}});
        array.fill([&](std::int64_t i) { return static_cast<double>(values[index(i)]); });
        return array;
    };
    sorted_expert_idxs = array_of(routing.sorted_expert_idxs);
    sorted_scattered_idxs = array_of(routing.sorted_scattered_idxs);
    expert_offsets = array_of(routing.expert_offsets);
}

Array random_gates(const Engine& engine, const Problem& problem, std::int64_t T, const Random& random) {
    Array gates(engine, problem.gate_dtype, {{T, problem.top_k}});
    gates.fill([&](std::int64_t i) { return i % 7 == 3 ? 0.0 : random.uniform(static_cast<std::uint64_t>(i)); });
    return gates;
}

Projection::Projection(const Engine& engine_, const Case& c, const Draws& draws)
    : Projection(engine_, c, draws,
                 choose_experts(draws("routing"), c.tokens(engine_.backend()), c.problem.top_k, c.problem.E, c.choice,
                                c.left_out)) {}

Projection::Projection(const Engine& engine_, const Case& c, const Draws& draws,
                       const std::vector<std::int64_t>& top_idx)
    : engine(engine_),
      spec(c),
      problem(c.problem),
      T(c.tokens(engine_.backend())),
      M(T * problem.top_k),
      host_routing(top_idx, problem.E),
      routing(engine, problem.index_dtype, host_routing) {
    const auto [E, K, N, R] = std::tuple(problem.E, problem.K, problem.N, problem.R);
    const auto fill = [&](Array& array, std::string_view purpose, double scale, const auto& skip) {
        const Random random = draws(purpose);
        array.fill([&](std::int64_t i) { return scale * random.normal(static_cast<std::uint64_t>(i)); }, skip);
    };
    // Rows of experts, so many of each.
    const auto fill_experts = [&](Array& array, std::string_view purpose, double scale, std::int64_t height) {
        fill(array, purpose, scale, [&](std::int64_t r) { return idle(r / height); });
    };
    x = rows_of(problem.x_rows, K);
    fill(x, "x", 1, [&](std::int64_t r) { return unused(problem.x_rows, r); });
    dy = rows_of(problem.y_rows, N);
    fill(dy, "dy", 1, [&](std::int64_t r) { return unused(problem.y_rows, r); });
    if (c.weight) {
        const bool ekn = problem.weight_layout == WeightLayout::ekn;
        const std::int64_t height = ekn ? K : N, width = ekn ? N : K;
        const bool quantised = problem.weights.encoding != Encoding::plain;
        if (quantised) encoded.emplace(engine, encoded_shape(problem), draws("W"));
        if (!quantised || c.decoded) {
            W = Array(engine, problem.dtype, {{E, height, width}, {height * width + c.expert_gap, width, 1}, c.shift});
        }
        if (!quantised) {
            fill_experts(W, "W", inverse_root(K), height);
        } else if (c.decoded) {
            const std::vector<double> values = decoded(encoded->on_host(), problem.dtype);
            W.fill([&](std::int64_t i) { return values[index(i)]; });
        }
    }
    if (R > 0) {
        A = Array(engine, problem.adapter_dtype, {{E, R, K}, strides_of_A(c), c.shift});
        fill_experts(A, "A", inverse_root(K), R);
        B = Array(engine, problem.adapter_dtype, {{E, N, R}, strides_of_B(c), c.shift});
        fill_experts(B, "B", 0.5 * inverse_root(R), N);
    }
    if (problem.bias) {
        bias = Array(engine, problem.dtype, {{E, N}});
        fill_experts(bias, "bias", 1, 1);
    }
    if (problem.gates) gates = random_gates(engine, problem, T, draws("gates"));
}

ForwardArgs Projection::forward_args() const {
    auto args = adapted<ForwardArgs>(*this);
    args.x = x.view();
    args.W = weight();
    args.bias = bias.view();
    return args;
}

BackwardInputArgs Projection::backward_input_args() const {
    auto args = adapted<BackwardInputArgs>(*this);
    args.dy = dy.view();
    args.W = weight();
    return args;
}

BackwardLoraArgs Projection::backward_lora_args() const {
    auto args = adapted<BackwardLoraArgs>(*this);
    args.x = x.view();
    args.dy = dy.view();
    return args;
}

Tensor Projection::ranked_view(const Array& array) const {
    Tensor view = array.view();
    view.shape[1] = problem.R;
    return view;
}

bool Projection::unused(RowOrder order, std::int64_t r) const {
    switch (order) {
        case RowOrder::token:
            return false;
        case RowOrder::scattered:
            return host_routing.left_out(r);
        case RowOrder::grouped:
            return r >= host_routing.rows();
    }
    return false;
}

std::int64_t Projection::row_in(RowOrder order, std::int64_t i) const {
    const std::int64_t f = host_routing.entry(i);
    return order == RowOrder::grouped ? i : order == RowOrder::scattered ? f : f / problem.top_k;
}

Array Projection::rows_of(RowOrder order, std::int64_t width) const {
    return {engine, problem.dtype, {{order == RowOrder::token ? T : M, width}, {width + spec.row_gap, 1}, spec.shift}};
}

}  // namespace smlora::workload
