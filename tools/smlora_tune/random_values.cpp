#include "smlora_tune/random_values.hpp"

#include "smlora_tune/elements.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace smlora::tool {
namespace {

// A prime, so that rows, columns and experts of any shape start at different places of the repeated values. Four
// million values take about a tenth of a second to draw.
constexpr std::int64_t period = 4194301;

// Large enough to make the cost of a copy's call small, small enough to stay in the cache of the host.
constexpr std::int64_t draw_chunk = 65536;

std::uint64_t stream_of(std::uint64_t seed, std::string_view role) {
    // FNV-1a; std::hash may differ between libraries.
    std::uint64_t hash = 14695981039346656037ULL;
    for (const char c : role) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
    return hash ^ (seed * 0x9E3779B97F4A7C15ULL);
}

}  // namespace

void fill_random(Buffer& buffer, std::int64_t count, DType dtype, Distribution distribution, double scale,
                 std::uint64_t seed, std::string_view role) {
    if (count == 0) return;
    const std::size_t element = size_of(dtype);
    const std::int64_t drawn = std::min(count, period);
    std::vector<unsigned char> block(static_cast<std::size_t>(drawn) * element);
    std::mt19937_64 generator(stream_of(seed, role));
    std::normal_distribution<double> normal(0.0, 1.0);
    std::uniform_real_distribution<double> uniform(0.05, 1.0);
    std::vector<double> values(static_cast<std::size_t>(std::min(drawn, draw_chunk)));
    for (std::int64_t begin = 0; begin < drawn; begin += draw_chunk) {
        const auto size = static_cast<std::size_t>(std::min(draw_chunk, drawn - begin));
        for (std::size_t i = 0; i < size; ++i) {
            values[i] = scale * (distribution == Distribution::normal ? normal(generator) : uniform(generator));
        }
        encode(values.data(), size, dtype, block.data() + static_cast<std::size_t>(begin) * element);
    }
    for (std::int64_t begin = 0; begin < count; begin += drawn) {
        const auto size = static_cast<std::size_t>(std::min(drawn, count - begin));
        buffer.copy_from_host(block.data(), size * element, static_cast<std::size_t>(begin) * element);
    }
}

std::vector<std::int64_t> random_top_idx(std::int64_t T, std::int64_t top_k, std::int64_t E, Skew skew, double left_out,
                                         std::uint64_t seed) {
    std::mt19937_64 generator(stream_of(seed, "top_idx"));
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

}  // namespace smlora::tool
