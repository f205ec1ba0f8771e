// The tensors of one projection, on the device of an engine, with memory for every output.
#pragma once

#include "smlora_tune/floor.hpp"
#include "tuning/random_routing.hpp"
#include "workload/projection.hpp"

#include <smlora/activation.hpp>
#include <smlora/operations.hpp>

#include <cstdint>
#include <vector>

namespace smlora::tool {

struct OperandOptions {
    std::int64_t T = 0;
    workload::AdapterLayout adapter = workload::AdapterLayout::seed;
    tuning::Skew skew = tuning::Skew::uniform;
    double left_out = 0;
    std::uint64_t seed = 0;
    bool row_operations = false;  ///< with what group, combine and combine_backward need besides
    bool unpacking = false;       ///< with what dequantize needs besides, if weights are quantised
    bool compared = true;         ///< with what quantised weights are decoded to
};

/// Inputs are those of workload::Projection; outputs are poisoned. xa, yb and the routing are outputs of one operation
/// and inputs of another. Arrays that the problem has no use for (gates without gates, the adapter with R = 0) are not
/// given.
class Operands {
 public:
    Operands(const Engine& engine, const Problem& problem, const OperandOptions& options);

    [[nodiscard]] RouteArgs route_args() const;
    [[nodiscard]] ForwardArgs forward_args() const;
    [[nodiscard]] BackwardInputArgs backward_input_args() const;
    [[nodiscard]] BackwardLoraArgs backward_lora_args() const;

    /// Of dy's rows; N must be even.
    [[nodiscard]] ActivationArgs activation_args() const;
    [[nodiscard]] ActivationBackwardArgs activation_backward_args() const;

    /// Only with OperandOptions::row_operations. Rows of width K, and of width N.
    [[nodiscard]] GroupArgs group_args() const;
    [[nodiscard]] CombineArgs combine_args() const;
    [[nodiscard]] CombineBackwardArgs combine_backward_args() const;

    /// Only with OperandOptions::unpacking, of quantised weights.
    [[nodiscard]] DequantizeArgs dequantize_args() const;

    [[nodiscard]] Load load() const;
    [[nodiscard]] std::size_t bytes() const;

    const std::vector<std::int64_t> top_idx_host;  ///< what top_idx holds
    workload::Projection inputs;
    workload::Array top_idx;
    workload::Array y, xa, dx, yb, dgates, dA, dB;
    workload::Array unpacked;
    workload::Array a;  ///< [rows of y, N / 2] where N is even
    // Of the row operations: [M, K]; [M, N] twice, [T, N]; [T, top_k] twice.
    workload::Array grouped_x, rows, drows, sums, row_gates, row_dgates;
};

}  // namespace smlora::tool
