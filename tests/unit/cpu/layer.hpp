// The inputs of one projection, and what its operations should give, by naive loops in fp64.
#pragma once

#include "unit/cpu/array.hpp"

#include <smlora/operations.hpp>
#include <smlora/problem.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace smlora::test {

enum class Tokens { random, one_expert, some_left_out, all_left_out, few_experts };
enum class AdapterLayout {
    contiguous,  // A [E, R, K], B [E, N, R]
    stacked,     // A [E * R, K], B [N, E * R] with column e * R + r
    peft,        // A [E * R, K], B [N, E * R] with column r * E + e
    transposed,  // A [K, E, R], B [R, N, E]
};

struct LayerOptions {
    Problem problem;
    std::int64_t T = 0;
    Tokens tokens = Tokens::random;
    AdapterLayout adapter = AdapterLayout::contiguous;
    std::int64_t row_gap = 0;     // elements between the rows of x, y, dx, dy
    std::int64_t expert_gap = 0;  // elements between the matrices of W
    float scaling = 0.75F;
    std::uint64_t seed = 1;
};

/// "E4 K96 ..", usable as the name of a test.
[[nodiscard]] std::string test_name(const LayerOptions& options);

/// Rows of results in fp64.
using Rows = std::vector<std::vector<double>>;

class Layer {
 public:
    explicit Layer(const LayerOptions& options);

    [[nodiscard]] std::int64_t M() const { return options.T * options.problem.top_k; }

    // Outputs with the layouts that the options ask for, poisoned.
    [[nodiscard]] Array make_y() const;
    [[nodiscard]] Array make_dx() const;
    [[nodiscard]] Array make_rank_rows() const;
    [[nodiscard]] Array make_a() const;
    [[nodiscard]] Array make_b() const;
    [[nodiscard]] Array make_gates() const;

    // Arguments with every input, and no output.
    [[nodiscard]] ForwardArgs forward_args() const;
    [[nodiscard]] BackwardInputArgs backward_input_args() const;
    [[nodiscard]] BackwardLoraArgs backward_lora_args() const;

    // The reference, in the layout of values() of the arrays above.
    [[nodiscard]] std::vector<double> expected_y() const;
    [[nodiscard]] std::vector<double> expected_xa() const;
    [[nodiscard]] std::vector<double> expected_dx() const;
    [[nodiscard]] std::vector<double> expected_yb() const;
    [[nodiscard]] std::vector<double> expected_dgates() const;
    [[nodiscard]] std::vector<double> expected_dA() const;
    [[nodiscard]] std::vector<double> expected_dB() const;

    LayerOptions options;
    Problem problem;
    Array top_idx;
    Array sorted_expert_idxs;
    Array sorted_scattered_idxs;
    Array expert_offsets;
    Array x;
    Array W;
    Array A;
    Array B;
    Array bias;
    Array gates;
    Array dy;

 private:
    [[nodiscard]] Routing routing() const;
    [[nodiscard]] Array make_rows(RowOrder order, std::int64_t columns) const;
    void make_routing(std::mt19937_64& random);
    [[nodiscard]] std::int64_t row(RowOrder order, std::int64_t i) const;
    [[nodiscard]] double weight(std::int64_t e, std::int64_t k, std::int64_t n) const;
    [[nodiscard]] double gate(std::int64_t i) const;
    [[nodiscard]] Rows xa_rows() const;
    [[nodiscard]] Rows yb_rows() const;
    [[nodiscard]] Rows dx_rows_without_gates() const;
    [[nodiscard]] std::vector<double> place(const Rows& rows, RowOrder order, std::int64_t columns, bool gated) const;

    std::vector<std::int64_t> expert_of_;  // by sorted position, E: left out
    std::vector<std::int64_t> entry_of_;
};

}  // namespace smlora::test
