// What the operations must give: the CPU backend in fp64 on the inputs as they were rounded.
#pragma once

#include "smlora_tune/operands.hpp"

#include <cstdint>
#include <vector>

namespace smlora::tool {

/// The routing, sorted by the standard library.
struct HostRouting {
    std::vector<std::int64_t> sorted_expert_idxs;
    std::vector<std::int64_t> sorted_scattered_idxs;
    std::vector<std::int64_t> expert_offsets;
    std::vector<std::int64_t> positions;  ///< of each flat entry: the inverse of sorted_scattered_idxs
};
[[nodiscard]] HostRouting host_routing(const std::vector<std::int64_t>& top_idx, std::int64_t E);

/// Results for the entries of some tokens. Row s * top_k + j of an entry-wise matrix belongs to choice j of the s-th
/// token; base, y and dx have a row for each token instead where the problem says RowOrder::token.
struct ReferenceRows {
    std::vector<double> base;    ///< width N
    std::vector<double> y;       ///< width N
    std::vector<double> dx;      ///< width K
    std::vector<double> xa;      ///< width R, by entry
    std::vector<double> yb;      ///< width R, by entry
    std::vector<double> dgates;  ///< width top_k, by token
};

/// Experts are worked on a few at a time, so that their weights in fp64 stay within a bound of memory.
[[nodiscard]] ReferenceRows reference_rows(const Engine& cpu, const Operands& operands, const HostRouting& routing,
                                           const std::vector<std::int64_t>& tokens);

/// dA [experts, R, K] and dB [experts, N, R] of some experts, from all their rows.
struct ReferenceGradients {
    std::vector<double> dA;
    std::vector<double> dB;
};
[[nodiscard]] ReferenceGradients reference_gradients(const Engine& cpu, const Operands& operands,
                                                     const HostRouting& routing,
                                                     const std::vector<std::int64_t>& experts);

/// The rows of x or dy (in `order`, width `width`) that belong to some tokens, in the order of ReferenceRows.
[[nodiscard]] std::vector<std::int64_t> rows_of_tokens(RowOrder order, std::int64_t top_k, const HostRouting& routing,
                                                       const std::vector<std::int64_t>& tokens);

/// `problem` in fp64 on the CPU, with grouped rows replaced by scattered ones: which position an entry has among the
/// grouped rows changes when others are left out, its flat index does not.
[[nodiscard]] Problem reference_problem(const Problem& problem, std::int64_t experts);

}  // namespace smlora::tool
