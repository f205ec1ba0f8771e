#include "tuning/random_routing.hpp"

#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>

namespace smlora::tuning {

std::string_view name(Skew skew) {
    switch (skew) {
        case Skew::uniform:
            return "uniform";
        case Skew::zipf:
            return "zipf";
        case Skew::one:
            return "one";
    }
    throw std::logic_error("name: unknown skew");
}

std::vector<std::int64_t> random_top_idx(std::int64_t T, std::int64_t top_k, std::int64_t E, Skew skew, double left_out,
                                         std::uint64_t seed) {
    std::mt19937_64 generator(seed);
    std::vector<std::int64_t> popularity(static_cast<std::size_t>(E));
    std::iota(popularity.begin(), popularity.end(), 0);
    // Which expert is the most popular is drawn too: the first of all would be a special case.
    std::shuffle(popularity.begin(), popularity.end(), generator);
    std::vector<double> weights(static_cast<std::size_t>(E));
    for (std::size_t rank = 0; rank < weights.size(); ++rank) {
        weights[rank] = skew == Skew::uniform ? 1.0
                        : skew == Skew::zipf  ? 1.0 / static_cast<double>(rank + 1)
                        : rank == 0           ? 1.0
                                              : 0.0;
    }
    const bool distinct = skew != Skew::one && top_k <= E;
    std::discrete_distribution<std::size_t> draw(weights.begin(), weights.end());
    std::bernoulli_distribution absent(left_out);
    std::vector<std::int64_t> top_idx(static_cast<std::size_t>(T * top_k));
    for (std::int64_t t = 0; t < T; ++t) {
        const auto first = top_idx.begin() + t * top_k;
        for (auto entry = first; entry != first + top_k; ++entry) {
            do {
                *entry = popularity[draw(generator)];
            } while (distinct && std::find(first, entry, *entry) != entry);
        }
    }
    for (std::int64_t& entry : top_idx) {
        if (absent(generator)) entry = -1;
    }
    return top_idx;
}

}  // namespace smlora::tuning
