#include "workload/routing.hpp"

#include <algorithm>
#include <numeric>

namespace smlora::workload {

std::vector<std::int64_t> choose_experts(const Random& random, std::int64_t T, std::int64_t top_k, std::int64_t E,
                                         Choice choice, double left_out) {
    std::vector<std::int64_t> top_idx;
    top_idx.reserve(static_cast<std::size_t>(T * top_k));
    std::vector<std::int64_t> experts(static_cast<std::size_t>(E));
    std::iota(experts.begin(), experts.end(), std::int64_t{0});
    const auto chosen = [&](std::int64_t f) {
        const auto i = 2 * static_cast<std::uint64_t>(f);
        switch (choice) {
            case Choice::one_expert:
                return E - 1;
            case Choice::skewed: {
                const double u = random.uniform(i);
                return static_cast<std::int64_t>(static_cast<double>(E) * u * u * u * u);
            }
            case Choice::few_experts:
                return random.below(i, E) / 3 * 3;
            case Choice::distinct:
                if (top_k <= E) {  // the next card of a shuffled deck
                    const auto j = static_cast<std::size_t>(f % top_k);
                    std::swap(experts[j], experts[j + static_cast<std::size_t>(random.below(i, E - f % top_k))]);
                    return experts[j];
                }
                break;
            case Choice::any:
                break;
        }
        return random.below(i, E);
    };
    for (std::int64_t f = 0; f < T * top_k; ++f) {
        const std::int64_t expert = chosen(f);
        top_idx.push_back(random.uniform(2 * static_cast<std::uint64_t>(f) + 1) < left_out ? -1 : expert);
    }
    return top_idx;
}

HostRouting::HostRouting(const std::vector<std::int64_t>& top_idx, std::int64_t E) {
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

}  // namespace smlora::workload
