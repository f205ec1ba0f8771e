// Choices of experts to route by, and what route should make of them: a plain host model.
#pragma once

#include "support/random.hpp"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace smlora::test {

enum class Choice {
    distinct,    ///< each token goes to top_k different experts, as a router chooses
    one_expert,  ///< everything to expert E - 1; top_k entries of a token may then name it more than once
    skewed,      ///< a few experts get most rows, many none: expert = E * u^4
};

/// top_idx [T, top_k]; a share `left_out` of the entries is -1.
inline std::vector<std::int64_t> choose_experts(const Random& random, std::int64_t T, std::int64_t top_k,
                                                std::int64_t E, Choice choice, double left_out) {
    std::vector<std::int64_t> top_idx;
    top_idx.reserve(static_cast<std::size_t>(T * top_k));
    std::vector<std::int64_t> experts(static_cast<std::size_t>(E));
    std::iota(experts.begin(), experts.end(), std::int64_t{0});
    for (std::int64_t f = 0; f < T * top_k; ++f) {
        const auto i = 2 * static_cast<std::uint64_t>(f);
        std::int64_t expert = E - 1;
        if (choice == Choice::skewed) {
            const double u = random.uniform(i);
            expert = static_cast<std::int64_t>(static_cast<double>(E) * u * u * u * u);
        } else if (choice == Choice::distinct && top_k <= E) {  // the next card of a shuffled deck
            const std::int64_t j = f % top_k;
            std::swap(experts[static_cast<std::size_t>(j)],
                      experts[static_cast<std::size_t>(j + random.below(i, E - j))]);
            expert = experts[static_cast<std::size_t>(j)];
        } else if (choice == Choice::distinct) {
            expert = random.below(i, E);
        }
        top_idx.push_back(random.uniform(i + 1) < left_out ? -1 : expert);
    }
    return top_idx;
}

/// What route makes of top_idx, by the definition: a stable sort by expert, entries left out last.
struct HostRouting {
    std::vector<std::int64_t> sorted_expert_idxs;  // E for entries left out
    std::vector<std::int64_t> sorted_scattered_idxs;
    std::vector<std::int64_t> expert_offsets;
    std::vector<std::int64_t> position;  // of each flat entry in the sorted order

    HostRouting() = default;
    HostRouting(const std::vector<std::int64_t>& top_idx, std::int64_t E) {
        const auto expert_of = [&](std::int64_t f) {
            const std::int64_t e = top_idx[static_cast<std::size_t>(f)];
            return e < 0 || e >= E ? E : e;
        };
        sorted_scattered_idxs.resize(top_idx.size());
        std::iota(sorted_scattered_idxs.begin(), sorted_scattered_idxs.end(), std::int64_t{0});
        std::stable_sort(sorted_scattered_idxs.begin(), sorted_scattered_idxs.end(),
                         [&](std::int64_t a, std::int64_t b) { return expert_of(a) < expert_of(b); });
        expert_offsets.assign(static_cast<std::size_t>(E), 0);
        position.resize(top_idx.size());
        for (std::size_t i = 0; i < top_idx.size(); ++i) {
            const std::int64_t f = sorted_scattered_idxs[i];
            sorted_expert_idxs.push_back(expert_of(f));
            position[static_cast<std::size_t>(f)] = static_cast<std::int64_t>(i);
            if (expert_of(f) < E) ++expert_offsets[static_cast<std::size_t>(expert_of(f))];
        }
        std::partial_sum(expert_offsets.begin(), expert_offsets.end(), expert_offsets.begin());
    }

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

}  // namespace smlora::test
