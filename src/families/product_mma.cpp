#include "families/product_mma.hpp"

#include "args/grouped_product_mma.h"
#include "args/weight.h"
#include "families/product_launch.hpp"
#include "families/roofline.hpp"
#include "families/shared_memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace smlora::families {
namespace {

constexpr const char* family_name = "grouped_product_mma";

/// Blocking of grouped_product_mma.
struct ProductTile {
    int m, n, k;  ///< the block's tile: rows, outputs, depth of a pipeline stage
    int warps_m, warps_n;
    int stages;
    int min_blocks;  ///< resident blocks a multiprocessor that registers are allotted for

    [[nodiscard]] grouped_product_mma::Blocking blocking() const { return {m, n, k, warps_m, warps_n, stages}; }
    [[nodiscard]] unsigned threads() const { return static_cast<unsigned>(grouped_product_mma::threads(blocking())); }
    /// Dynamic shared memory.
    [[nodiscard]] unsigned shared_bytes(std::int64_t E) const;
};

unsigned ProductTile::shared_bytes(std::int64_t E) const {
    return static_cast<unsigned>(
        grouped_product_mma::shared_memory(blocking(), static_cast<int>(E), weight::plain_stage_bytes(n, k)).bytes);
}

/// A tile with its share of the best tile's speed when it is full, weights output-contiguous and reduction-contiguous,
/// measured on an H200 (docs/lab/2026-11-23-portable.md, "Tiles of the portable path").
struct RatedTile {
    ProductTile tile;
    double efficiency[2];
};

constexpr std::array product_tiles{
    RatedTile{{128, 128, 32, 2, 2, 5, 2}, {1.00, 0.90}},
    RatedTile{{128, 128, 64, 2, 2, 3, 2}, {0.96, 1.00}},
    RatedTile{{128, 128, 32, 2, 2, 4, 2}, {0.97, 0.88}},
    RatedTile{{64, 256, 32, 1, 4, 4, 2}, {0.93, 0.93}},
    RatedTile{{64, 128, 64, 2, 2, 3, 3}, {0.86, 0.87}},
    RatedTile{{32, 128, 64, 1, 4, 4, 3}, {0.60, 0.60}},
    RatedTile{{16, 128, 64, 1, 4, 4, 3}, {0.40, 0.40}},
    RatedTile{{64, 64, 64, 2, 2, 4, 3}, {0.60, 0.60}},
    RatedTile{{64, 32, 64, 4, 1, 5, 2}, {0.40, 0.40}},
    RatedTile{{64, 16, 64, 4, 1, 6, 2}, {0.25, 0.25}},
    // For GPUs with 100 KiB a multiprocessor; not measured, ranked below the same shapes with more stages.
    RatedTile{{128, 128, 32, 2, 2, 3, 2}, {0.90, 0.82}},
    RatedTile{{64, 128, 32, 2, 2, 3, 2}, {0.70, 0.70}},
    RatedTile{{64, 16, 64, 4, 1, 3, 2}, {0.20, 0.20}},
};

/// For the tuner to try, and where none of the others fits: slower where they were measured, or not measured at all.
constexpr std::array further_product_tiles{
    RatedTile{{128, 256, 64, 2, 4, 3, 1}, {0.92, 0.91}}, RatedTile{{128, 256, 32, 2, 4, 4, 1}, {0.90, 0.77}},
    RatedTile{{256, 128, 32, 4, 2, 4, 1}, {0.83, 0.77}}, RatedTile{{64, 256, 32, 1, 4, 3, 2}, {0.88, 0.88}},
    RatedTile{{64, 128, 64, 2, 2, 4, 2}, {0.84, 0.85}},  RatedTile{{64, 128, 32, 2, 2, 4, 3}, {0.69, 0.69}},
    RatedTile{{32, 256, 32, 1, 4, 4, 2}, {0.55, 0.55}},  RatedTile{{16, 256, 64, 1, 4, 3, 2}, {0.38, 0.38}},
    RatedTile{{128, 32, 64, 4, 1, 4, 2}, {0.33, 0.33}},  RatedTile{{128, 16, 64, 4, 1, 4, 2}, {0.20, 0.20}},
    RatedTile{{32, 16, 64, 2, 1, 6, 4}, {0.31, 0.31}},  // by rank rows: docs/lab/2026-11-30-cost-model.md
};

/// What the best tile reaches, full.
double mma_flop_per_second(const gpu::DeviceFacts& facts) {
    // Hopper's mma.sync reaches 450 of 796 TFLOP/s (docs/lab/2026-11-23-portable.md); elsewhere it is the tensor
    // cores' own instruction, and four fifths are usual.
    const double share = facts.arch.number() == 90 ? 0.565 : 0.8;
    return share * facts.tensor_flop_per_second;
}

/// Expected row tiles of an expert whose rows scatter around `mean`: a full count plus half a tile of rounding, and no
/// fewer than the share of experts that have rows at all.
double row_tiles(double mean, int tile) {
    const double busy = 1.0 - std::exp(-mean);
    return std::max(busy, mean / tile + std::min(0.5, mean / tile));
}

/// How much longer the multiprocessor with the most tiles takes than if all had as many: `tiles`, the mean. It holds
/// `blocks` tiles at once, of which one alone is not as many times as fast.
double slowest_to_mean(double tiles, int blocks) {
    constexpr double least_share = 0.65;  // of the time that all of them take; fitted to rank rows
    const double whole_rounds = std::floor(tiles / blocks);
    const double rest = tiles - whole_rounds * blocks;
    const double last_round = rest > 0 ? std::max(rest * last_to_mean(rest), least_share * blocks) : 0;
    return (whole_rounds * blocks + last_round) / tiles;
}

tuning::Candidate product_candidate(const RatedTile& rated, const ProductWork& work, const ProductSize& size,
                                    const gpu::DeviceFacts& facts) {
    // Work of a tile beside its products, in rows: filling the pipeline and storing.
    constexpr double overhead_rows = 12.0;
    const ProductTile& tile = rated.tile;
    const double columns = std::ceil(static_cast<double>(size.out) / tile.n) * tile.n;
    const double tiles = static_cast<double>(size.E) * row_tiles(size.rows_per_expert, tile.m);
    double flop = 2 * tiles * (tile.m + overhead_rows) * columns * size.depth /
                  rated.efficiency[size.reduction_contiguous ? 1 : 0];
    if (!work.followed) {
        flop *= slowest_to_mean(tiles * columns / tile.n / facts.multiprocessors, tile.min_blocks);
    }
    // Rank rows are mostly reading, which is the slower in pieces of 64 bytes of a row: by the H200 at ranks 128 and
    // 256.
    constexpr double cost_of_short_pieces = 1.3;
    const bool short_pieces = work.product.kind == Product::Kind::rank_rows && tile.k < 64;
    const double bytes = short_pieces ? cost_of_short_pieces * size.bytes : size.bytes;
    tuning::Candidate candidate;
    candidate.name = fmt::format("mma_{}x{}x{}_w{}x{}_s{}_b{}", tile.m, tile.n, tile.k, tile.warps_m, tile.warps_n,
                                 tile.stages, tile.min_blocks);
    candidate.configuration = {family_name,
                               {{"TILE_M", tile.m},
                                {"TILE_N", tile.n},
                                {"TILE_K", tile.k},
                                {"WARPS_M", tile.warps_m},
                                {"WARPS_N", tile.warps_n},
                                {"STAGES", tile.stages},
                                {"MIN_BLOCKS", tile.min_blocks}}};
    constexpr double seconds_if_followed = 1e-6;  // of the launch
    candidate.predicted_seconds = (work.followed ? seconds_if_followed : seconds_of_launch) +
                                  predicted_seconds(flop / mma_flop_per_second(facts), bytes, facts);
    candidate.shared_bytes = tile.shared_bytes(size.E);
    candidate.refusal = shared_memory_refusal(tile.shared_bytes(size.E), tile.min_blocks, facts);
    return candidate;
}

tuning::SearchSpace candidates(const ProductWork& work, const gpu::DeviceFacts& facts) {
    const ProductSize size = product_size(work);
    const bool rank_rows = work.product.kind == Product::Kind::rank_rows;
    tuning::SearchSpace space;
    for (const RatedTile& rated : product_tiles) space.push_back(product_candidate(rated, work, size, facts));
    const auto best = tuning::heuristic_choice(space);
    for (const RatedTile& rated : further_product_tiles) {
        space.push_back(product_candidate(rated, work, size, facts));
        // No better than the best of the others without a measurement that says so; of rank rows there is one.
        double& predicted = space.back().predicted_seconds;
        if (best && !rank_rows) predicted = std::max(predicted, 1.02 * space[*best].predicted_seconds);
    }
    return space;
}

ProductTile tile_of(const tuning::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {at("TILE_M"), at("TILE_N"), at("TILE_K"), at("WARPS_M"), at("WARPS_N"), at("STAGES"), at("MIN_BLOCKS")};
}

Step step_of(const ProductWork& work, const tuning::Configuration& configuration) {
    const ProductTile tile = tile_of(configuration);
    Step step;
    auto& spec = step.spec;
    spec.family = family_name;
    spec.threads = tile.threads();
    spec.min_blocks = static_cast<unsigned>(tile.min_blocks);
    spec.dynamic_shared = tile.shared_bytes(launched_experts(work));
    spec.constants = product_constants(work);
    auto& constants = spec.constants;
    constants.emplace_back("RANK", rank_columns(work));
    constants.emplace_back("WEIGHT_ROW_STRIDE", work.product.weight_row_stride);
    constants.emplace_back("TILE_M", tile.m);
    constants.emplace_back("TILE_N", tile.n);
    constants.emplace_back("TILE_K", tile.k);
    constants.emplace_back("WARPS_M", tile.warps_m);
    constants.emplace_back("WARPS_N", tile.warps_n);
    constants.emplace_back("STAGES", tile.stages);
    step.tile_rows = tile.m;
    step.column_tiles = static_cast<int>((work.product.out + tile.n - 1) / tile.n);
    step.product_launch = portable_launch(launched_experts(work));
    return step;
}

}  // namespace

const ProductFamily product_mma{
    .name = family_name,
    .instructions = "mma",
    .makes_rank_products = true,
    .candidates = candidates,
    .step = step_of,
};

}  // namespace smlora::families
