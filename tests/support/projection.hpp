// Everything that goes into the operations on one case: random inputs on a backend, and poisoned outputs.
#pragma once

#include "support/array.hpp"
#include "support/case.hpp"
#include "support/routing.hpp"

#include <smlora/operations.hpp>

#include <cmath>
#include <string>

namespace smlora::test {

/// A routing as the operations take it, from the host model.
class RoutingArrays {
 public:
    RoutingArrays() = default;
    RoutingArrays(const Engine& engine, DType dtype, const HostRouting& routing) {
        const auto array_of = [&](const std::vector<std::int64_t>& values) {
            Array array(engine, dtype, {{static_cast<std::int64_t>(values.size())}});
            array.fill([&](std::int64_t i) { return static_cast<double>(values[index(i)]); });
            return array;
        };
        sorted_expert_idxs = array_of(routing.sorted_expert_idxs);
        sorted_scattered_idxs = array_of(routing.sorted_scattered_idxs);
        expert_offsets = array_of(routing.expert_offsets);
    }
    [[nodiscard]] Routing view() const {
        return {sorted_expert_idxs.view(), sorted_scattered_idxs.view(), expert_offsets.view()};
    }

    Array sorted_expert_idxs, sorted_scattered_idxs, expert_offsets;
};

/// Inputs drawn so that base product and adapter weigh the same and outputs are of order 1. What an operation has no
/// business with is NaN: rows of x and dy whose entry is left out, and everything of experts without rows.
class Projection {
 public:
    Projection(const Engine& engine_, const Case& c)
        : engine(engine_), spec(c), problem(c.problem), T(c.tokens(engine_.backend())), M(T * problem.top_k) {
        const auto [E, K, N, R, top_k] = std::tuple(problem.E, problem.K, problem.N, problem.R, problem.top_k);
        host_routing = HostRouting(choose_experts(fresh("routing"), T, top_k, E, c.choice, c.left_out), E);
        routing = RoutingArrays(engine, problem.index_dtype, host_routing);

        x = rows_of(problem.x_rows, K);
        fill(x, "x", 1, [&](std::int64_t r) { return unused(problem.x_rows, r); });
        dy = rows_of(problem.y_rows, N);
        fill(dy, "dy", 1, [&](std::int64_t r) { return unused(problem.y_rows, r); });

        if (c.weight) {
            const bool ekn = problem.weight_layout == WeightLayout::ekn;
            const std::int64_t height = ekn ? K : N, width = ekn ? N : K;
            W = Array(engine, problem.dtype, {{E, height, width}, {height * width + c.expert_gap, width, 1}, c.shift});
            fill(W, "W", 1 / std::sqrt(static_cast<double>(K)), [&](std::int64_t r) { return idle(r / height); });
        }
        if (R > 0) {
            A = Array(engine, problem.adapter_dtype, {{E, R, K}, strides_of_A(), c.shift});
            fill(A, "A", 1 / std::sqrt(static_cast<double>(K)), [&](std::int64_t r) { return idle(r / R); });
            B = Array(engine, problem.adapter_dtype, {{E, N, R}, strides_of_B(), c.shift});
            fill(B, "B", 0.5 / std::sqrt(static_cast<double>(R)), [&](std::int64_t r) { return idle(r / N); });
        }
        if (problem.bias) {
            bias = Array(engine, problem.dtype, {{E, N}});
            fill(bias, "bias", 1, [&](std::int64_t r) { return idle(r); });
        }
        if (problem.gates) {
            gates = Array(engine, problem.gate_dtype, {{T, top_k}});
            const Random random = fresh("gates");
            // Every seventh gate is exactly 0, the case in which a gradient cannot be had by dividing by the gate.
            gates.fill(
                [&](std::int64_t i) { return i % 7 == 3 ? 0.0 : random.uniform(static_cast<std::uint64_t>(i)); });
        }
    }

    [[nodiscard]] ForwardArgs forward_args() const {
        ForwardArgs args;
        args.x = x.view();
        args.W = W.view();
        args.A = A.view();
        args.B = B.view();
        args.bias = bias.view();
        args.gates = gates.view();
        args.routing = routing.view();
        args.scaling = spec.scaling;
        return args;
    }
    [[nodiscard]] BackwardInputArgs backward_input_args() const {
        BackwardInputArgs args;
        args.dy = dy.view();
        args.W = W.view();
        args.A = A.view();
        args.B = B.view();
        args.gates = gates.view();
        args.routing = routing.view();
        args.scaling = spec.scaling;
        return args;
    }
    [[nodiscard]] BackwardLoraArgs backward_lora_args() const {
        BackwardLoraArgs args;
        args.x = x.view();
        args.dy = dy.view();
        args.A = A.view();
        args.B = B.view();
        args.gates = gates.view();
        args.routing = routing.view();
        args.scaling = spec.scaling;
        return args;
    }

    // Outputs, every byte 0xFF.
    [[nodiscard]] Array make_y() const { return rows_of(problem.y_rows, problem.N); }
    [[nodiscard]] Array make_dx() const { return rows_of(problem.x_rows, problem.K); }
    [[nodiscard]] Array make_dgates() const { return {engine, problem.gate_dtype, {{T, problem.top_k}}}; }
    [[nodiscard]] Array make_dA() const { return {engine, problem.adapter_dtype, A.layout()}; }
    [[nodiscard]] Array make_dB() const { return {engine, problem.adapter_dtype, B.layout()}; }
    /// xa or yb with its padding columns, which are part of the output: they are written as zero.
    [[nodiscard]] Array make_ranked() const { return {engine, problem.dtype, {{M, padded_rank(problem)}}}; }
    [[nodiscard]] Tensor ranked_view(const Array& array) const {
        Tensor view = array.view();
        view.shape[1] = problem.R;
        return view;
    }

    /// Whether row r of a tensor in this order belongs to an entry that is left out.
    [[nodiscard]] bool unused(RowOrder order, std::int64_t r) const {
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
    /// Whether expert e has no rows.
    [[nodiscard]] bool idle(std::int64_t e) const { return host_routing.begin(e) == host_routing.end(e); }

    /// A [rows, width] tensor in one of the orders, with the case's gaps and shift.
    [[nodiscard]] Array rows_of(RowOrder order, std::int64_t width) const {
        return {
            engine, problem.dtype, {{order == RowOrder::token ? T : M, width}, {width + spec.row_gap, 1}, spec.shift}};
    }

    const Engine& engine;
    Case spec;
    Problem problem;
    std::int64_t T;
    std::int64_t M;
    HostRouting host_routing;
    RoutingArrays routing;
    Array x, dy, W, A, B, bias, gates;

 private:
    template <class Skip>
    static void fill(Array& array, const std::string& purpose, double scale, const Skip& skip) {
        const Random random = fresh(purpose);
        array.fill([&](std::int64_t i) { return scale * random.normal(static_cast<std::uint64_t>(i)); }, skip);
    }

    [[nodiscard]] std::vector<std::int64_t> strides_of_A() const {
        const auto [E, R, K] = std::tuple(problem.E, problem.R, problem.K);
        switch (spec.adapter) {
            case AdapterLayout::transposed:
            case AdapterLayout::peft_transposed:
                return {R, 1, E * R};
            case AdapterLayout::gapped:
                return {R * (K + 3), K + 3, 1};
            default:
                return {R * K, K, 1};
        }
    }
    [[nodiscard]] std::vector<std::int64_t> strides_of_B() const {
        const auto [E, R, N] = std::tuple(problem.E, problem.R, problem.N);
        switch (spec.adapter) {
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
};

}  // namespace smlora::test
