// Everything that goes into the operations on one case: random inputs on a backend, and poisoned outputs.
#pragma once

#include "workload/array.hpp"
#include "workload/case.hpp"
#include "workload/encoded.hpp"
#include "workload/random.hpp"
#include "workload/routing.hpp"

#include <smlora/operations.hpp>

#include <optional>
#include <string_view>
#include <vector>

namespace smlora::workload {

/// A routing as the operations take it, from the host model.
class RoutingArrays {
 public:
    RoutingArrays() = default;
    RoutingArrays(const Engine& engine, DType dtype, const HostRouting& routing);
    [[nodiscard]] Routing view() const {
        return {sorted_expert_idxs.view(), sorted_scattered_idxs.view(), expert_offsets.view()};
    }

    Array sorted_expert_idxs, sorted_scattered_idxs, expert_offsets;
};

/// Gates [T, top_k] between 0 and 1. Every seventh is exactly 0, the case in which a gradient cannot be had by dividing
/// by the gate.
[[nodiscard]] Array random_gates(const Engine& engine, const Problem& problem, std::int64_t T, const Random& random);

/// Inputs drawn so that base product and adapter weigh the same and outputs are of order 1 with a scaling of 2. What an
/// operation has no business with is NaN: rows of x and dy whose entry is left out, and everything of experts without
/// rows. Quantised weights have another scale for each block; those of experts without rows are as good as any.
class Projection {
 public:
    /// Routed as the case says.
    Projection(const Engine& engine, const Case& spec, const Draws& draws);
    /// Routed by `top_idx` [T, top_k] instead.
    Projection(const Engine& engine, const Case& spec, const Draws& draws, const std::vector<std::int64_t>& top_idx);

    // Inputs, without outputs.
    [[nodiscard]] ForwardArgs forward_args() const;
    [[nodiscard]] BackwardInputArgs backward_input_args() const;
    [[nodiscard]] BackwardLoraArgs backward_lora_args() const;

    /// What the operations take.
    [[nodiscard]] Weight weight() const { return encoded ? encoded->weight() : Weight(W.view()); }

    // Outputs, every byte 0xFF.
    [[nodiscard]] Array make_y() const { return rows_of(problem.y_rows, problem.N); }
    [[nodiscard]] Array make_dx() const { return rows_of(problem.x_rows, problem.K); }
    [[nodiscard]] Array make_dgates() const { return {engine, problem.gate_dtype, {{T, problem.top_k}}}; }
    [[nodiscard]] Array make_dA() const { return {engine, problem.adapter_dtype, A.layout()}; }
    [[nodiscard]] Array make_dB() const { return {engine, problem.adapter_dtype, B.layout()}; }
    /// xa or yb with its padding columns, which are part of the output: they are written as zero.
    [[nodiscard]] Array make_ranked() const { return {engine, problem.dtype, {{M, padded_rank(problem)}}}; }
    [[nodiscard]] Tensor ranked_view(const Array& array) const;

    /// Whether row r of a tensor in this order belongs to an entry that is left out.
    [[nodiscard]] bool unused(RowOrder order, std::int64_t r) const;
    /// Whether expert e has no rows.
    [[nodiscard]] bool idle(std::int64_t e) const { return host_routing.begin(e) == host_routing.end(e); }
    /// The row of a tensor in this order that sorted position i reads or writes.
    [[nodiscard]] std::int64_t row_in(RowOrder order, std::int64_t i) const;

    /// A [rows, width] tensor in one of the orders, with the case's gaps and shift.
    [[nodiscard]] Array rows_of(RowOrder order, std::int64_t width) const;

    const Engine& engine;
    Case spec;
    Problem problem;
    std::int64_t T;
    std::int64_t M;
    HostRouting host_routing;
    RoutingArrays routing;
    Array x, dy, A, B, bias, gates;
    Array W;                                    ///< plain, or what the quantised one is decoded to if the case asks
    std::optional<EncodedWeight> encoded = {};  ///< what the operations take then
};

}  // namespace smlora::workload
