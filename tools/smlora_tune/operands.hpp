// The tensors of one projection, on the device of an engine.
#pragma once

#include "smlora_tune/floor.hpp"
#include "smlora_tune/random_values.hpp"

#include <smlora/activation.hpp>
#include <smlora/memory.hpp>
#include <smlora/operations.hpp>

#include <cstdint>
#include <string_view>
#include <vector>

namespace smlora::tool {

/// How B [E, N, R] lies in memory; A is always [E, R, K].
enum class BLayout {
    enr,  ///< one matrix an expert
    ner,  ///< [N, E * R], column e * R + r
    nre,  ///< [N, R * E], column r * E + e: PEFT's
};

struct OperandOptions {
    std::int64_t T = 0;
    BLayout b_layout = BLayout::ner;
    Skew skew = Skew::uniform;
    double left_out = 0;
    std::uint64_t seed = 0;
    bool row_operations = false;  ///< with what group, combine and combine_backward need besides
};

/// A tensor and the memory that it lies in, from the first byte on.
struct Array {
    Buffer buffer;
    Tensor tensor;
};

/// Inputs hold random values, chosen such that y, its LoRA part and dx are all of the order of 1; outputs are not
/// initialised. xa, yb and the routing are outputs of one operation and inputs of another. Arrays that the problem
/// has no use for (gates without gates, the adapter with R = 0) are not given.
class Operands {
 public:
    Operands(const Engine& engine, const Problem& problem, const OperandOptions& options);

    // A power of two, so that scaling rounds nothing, and not 1, so that leaving it out shows.
    static constexpr float scaling = 2.0F;

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

    [[nodiscard]] Load load() const;
    [[nodiscard]] std::size_t bytes() const;

    Problem problem;
    std::int64_t T = 0;
    std::int64_t M = 0;
    std::vector<std::int64_t> top_idx_host;  ///< what top_idx holds

    Array top_idx, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets;
    Array x, W, A, B, bias, gates, dy;
    Array y, xa, dx, yb, dgates, dA, dB;
    Array a;  ///< [rows of y, N / 2] where N is even
    // Of the row operations: [M, K]; [M, N] twice, [T, N]; [T, top_k] twice.
    Array grouped_x, rows, drows, sums, row_gates, row_dgates;

 private:
    [[nodiscard]] Routing routing() const;
};

}  // namespace smlora::tool
