// Choices of experts to route by, and what route should make of them: a plain host model.
#pragma once

#include "workload/random.hpp"

#include <cstdint>
#include <vector>

namespace smlora::workload {

enum class Choice {
    distinct,     ///< each token goes to top_k different experts, as a router chooses
    any,          ///< each entry for itself, so that a token may name an expert more than once
    one_expert,   ///< everything to expert E - 1
    few_experts,  ///< as `any`, but only every third expert, from the first on
    skewed,       ///< a few experts get most rows, many none: expert = E * u^4
};

/// top_idx [T, top_k]; a share `left_out` of the entries is -1. With distinct, choices beyond the number of experts
/// repeat them. (tuning::random_top_idx makes what routers make, to measure on. Tests also need what no router makes: a
/// token that names an expert twice, experts without rows.)
[[nodiscard]] std::vector<std::int64_t> choose_experts(const Random& random, std::int64_t T, std::int64_t top_k,
                                                       std::int64_t E, Choice choice, double left_out);

/// What route makes of top_idx, by the definition: a stable sort by expert, entries left out last.
struct HostRouting {
    std::vector<std::int64_t> sorted_expert_idxs;  // E for entries left out
    std::vector<std::int64_t> sorted_scattered_idxs;
    std::vector<std::int64_t> expert_offsets;
    std::vector<std::int64_t> position;  // of each flat entry in the sorted order

    HostRouting() = default;
    HostRouting(const std::vector<std::int64_t>& top_idx, std::int64_t E);

    [[nodiscard]] std::int64_t rows() const { return expert_offsets.back(); }
    [[nodiscard]] std::int64_t entry(std::int64_t i) const {
        return sorted_scattered_idxs[static_cast<std::size_t>(i)];
    }
    [[nodiscard]] std::int64_t expert(std::int64_t i) const { return sorted_expert_idxs[static_cast<std::size_t>(i)]; }
    [[nodiscard]] std::int64_t position_of(std::int64_t f) const { return position[static_cast<std::size_t>(f)]; }
    [[nodiscard]] bool left_out(std::int64_t f) const { return position_of(f) >= rows(); }
    [[nodiscard]] std::int64_t begin(std::int64_t e) const {
        return e == 0 ? 0 : expert_offsets[static_cast<std::size_t>(e - 1)];
    }
    [[nodiscard]] std::int64_t end(std::int64_t e) const { return expert_offsets[static_cast<std::size_t>(e)]; }
};

}  // namespace smlora::workload
