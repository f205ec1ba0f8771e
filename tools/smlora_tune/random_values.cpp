#include "smlora_tune/random_values.hpp"

#include "smlora_tune/elements.hpp"

#include <algorithm>
#include <cmath>
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

}  // namespace smlora::tool
