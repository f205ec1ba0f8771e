#include "ops/tiles.hpp"

#include <smlora/error.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace smlora::ops {
namespace {

/// A candidate with its share of the best candidate's speed on a full tile, weights output-contiguous and
/// reduction-contiguous, measured on an H200 (docs/performance.md, "Tiles of the portable path").
struct Candidate {
    ProductTile tile;
    double efficiency[2];
};

constexpr std::array candidates{
    Candidate{{128, 128, 32, 2, 2, 5, 2}, {1.00, 0.90}},
    Candidate{{128, 128, 64, 2, 2, 3, 2}, {0.96, 1.00}},
    Candidate{{128, 128, 32, 2, 2, 4, 2}, {0.97, 0.88}},
    Candidate{{64, 256, 32, 1, 4, 4, 2}, {0.93, 0.93}},
    Candidate{{64, 128, 64, 2, 2, 3, 3}, {0.86, 0.87}},
    Candidate{{32, 128, 64, 1, 4, 4, 3}, {0.60, 0.60}},
    Candidate{{16, 128, 64, 1, 4, 4, 3}, {0.40, 0.40}},
    Candidate{{64, 64, 64, 2, 2, 4, 3}, {0.60, 0.60}},
    Candidate{{64, 32, 64, 4, 1, 5, 2}, {0.40, 0.40}},
    Candidate{{64, 16, 64, 4, 1, 6, 2}, {0.25, 0.25}},
    // For GPUs with 100 KiB a multiprocessor; not measured, ranked below the same shapes with more stages.
    Candidate{{128, 128, 32, 2, 2, 3, 2}, {0.90, 0.82}},
    Candidate{{64, 128, 32, 2, 2, 3, 2}, {0.70, 0.70}},
    Candidate{{64, 16, 64, 4, 1, 3, 2}, {0.20, 0.20}},
};

/// Whether the blocks that the tile's efficiency rests on fit one multiprocessor together.
bool fits(const ProductTile& tile, std::int64_t E, const gpu::DeviceFacts& facts) {
    constexpr unsigned reserved = 1024;  // the driver's share of each block
    const unsigned bytes = tile.shared_bytes(E);
    return bytes <= static_cast<unsigned>(facts.shared_bytes_per_block) &&
           static_cast<unsigned>(tile.min_blocks) * (bytes + reserved) <=
               static_cast<unsigned>(facts.shared_bytes_per_multiprocessor);
}

/// Expected row tiles of an expert whose rows scatter around `mean`: a full count plus half a tile of rounding, and no
/// fewer than the share of experts that have rows at all.
double row_tiles(double mean, int tile) {
    const double busy = 1.0 - std::exp(-mean);
    return std::max(busy, mean / tile + std::min(0.5, mean / tile));
}

}  // namespace

unsigned ProductTile::shared_bytes(std::int64_t E) const {
    const int pipeline = std::max(stages * (m + n) * k * 2, m * n * 2);
    return static_cast<unsigned>(pipeline + m * 4 + (static_cast<int>(E) + 2) * 4 + warps_m * warps_n * 4);
}

ProductTile choose_product_tile(const ProductSize& size, const gpu::DeviceFacts& facts) {
    // Work of a tile beside its products, in rows: filling the pipeline and storing.
    constexpr double overhead_rows = 12.0;
    const ProductTile* best = nullptr;
    double best_cost = std::numeric_limits<double>::infinity();
    for (const Candidate& candidate : candidates) {
        const ProductTile& tile = candidate.tile;
        if (!fits(tile, size.E, facts)) continue;
        const double columns = std::ceil(static_cast<double>(size.out) / tile.n) * tile.n;
        const double cost = row_tiles(size.rows_per_expert, tile.m) * (tile.m + overhead_rows) * columns /
                            candidate.efficiency[size.reduction_contiguous ? 1 : 0];
        if (cost < best_cost) {
            best_cost = cost;
            best = &tile;
        }
    }
    if (best == nullptr) {
        throw Error(ErrorCode::unsupported, "no tile fits the shared memory of " + facts.name);
    }
    return *best;
}

unsigned GradientTile::shared_bytes(std::int64_t E) const {
    const int pipeline = stages * (c + r) * k * 2;
    const int staging = r * (c + 4) * 4;
    return static_cast<unsigned>(pipeline + staging + 2 * (static_cast<int>(E) + 1) * 4 + warps * 4);
}

GradientTile choose_gradient_tile(std::int64_t E, std::int64_t R, const gpu::DeviceFacts& facts) {
    // Memory-bound: many blocks with few stages hide the latency of the gathered rows best.
    GradientTile tile{128, 128, 32, 4, 4, 2};
    if (R <= 16) {
        tile = {128, 16, 32, 4, 3, 6};
    } else if (R <= 32) {
        tile = {128, 32, 32, 4, 3, 4};
    } else if (R <= 64) {
        tile = {128, 64, 32, 4, 3, 3};
    }
    if (tile.shared_bytes(E) > static_cast<unsigned>(facts.shared_bytes_per_block)) {
        throw Error(ErrorCode::unsupported,
                    "no tile of the adapter's gradients fits the shared memory of " + facts.name);
    }
    return tile;
}

}  // namespace smlora::ops
