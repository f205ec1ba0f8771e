#include "families/tiles.hpp"

#include "args/weight.h"
#include "families/roofline.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace smlora::families {
namespace {

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
    RatedTile{{32, 16, 64, 2, 1, 6, 4}, {0.13, 0.13}},
};

/// Why the blocks that a tile's speed rests on do not fit one multiprocessor together; empty when they do.
std::string refusal(unsigned shared_bytes, int blocks, const gpu::DeviceFacts& facts) {
    constexpr unsigned reserved = 1024;  // the driver's share of each block
    if (shared_bytes > static_cast<unsigned>(facts.shared_bytes_per_block)) {
        return fmt::format("a block needs {} bytes of shared memory and {} has {}", shared_bytes, facts.name,
                           facts.shared_bytes_per_block);
    }
    const unsigned together = static_cast<unsigned>(blocks) * (shared_bytes + reserved);
    if (together > static_cast<unsigned>(facts.shared_bytes_per_multiprocessor)) {
        return fmt::format("{} blocks need {} bytes of a multiprocessor's shared memory and {} has {}", blocks,
                           together, facts.name, facts.shared_bytes_per_multiprocessor);
    }
    return {};
}

/// Expected row tiles of an expert whose rows scatter around `mean`: a full count plus half a tile of rounding, and no
/// fewer than the share of experts that have rows at all.
double row_tiles(double mean, int tile) {
    const double busy = 1.0 - std::exp(-mean);
    return std::max(busy, mean / tile + std::min(0.5, mean / tile));
}

tune::Candidate product_candidate(const RatedTile& rated, const ProductSize& size, const gpu::DeviceFacts& facts) {
    // Work of a tile beside its products, in rows: filling the pipeline and storing.
    constexpr double overhead_rows = 12.0;
    const ProductTile& tile = rated.tile;
    const double columns = std::ceil(static_cast<double>(size.out) / tile.n) * tile.n;
    const double rows =
        static_cast<double>(size.E) * row_tiles(size.rows_per_expert, tile.m) * (tile.m + overhead_rows);
    const double flop = 2 * rows * columns * size.depth / rated.efficiency[size.reduction_contiguous ? 1 : 0];
    tune::Candidate candidate;
    candidate.name = fmt::format("mma_{}x{}x{}_w{}x{}_s{}_b{}", tile.m, tile.n, tile.k, tile.warps_m, tile.warps_n,
                                 tile.stages, tile.min_blocks);
    candidate.configuration = {product_mma_family,
                               {{"TILE_M", tile.m},
                                {"TILE_N", tile.n},
                                {"TILE_K", tile.k},
                                {"WARPS_M", tile.warps_m},
                                {"WARPS_N", tile.warps_n},
                                {"STAGES", tile.stages},
                                {"MIN_BLOCKS", tile.min_blocks}}};
    candidate.predicted_seconds = predicted_seconds(flop / mma_flop_per_second(facts), size.bytes, facts);
    candidate.shared_bytes = tile.shared_bytes(size.E);
    candidate.refusal = refusal(tile.shared_bytes(size.E), tile.min_blocks, facts);
    return candidate;
}

}  // namespace

unsigned ProductTile::threads() const { return static_cast<unsigned>(grouped_product_mma::threads(blocking())); }

unsigned ProductTile::shared_bytes(std::int64_t E) const {
    return static_cast<unsigned>(
        grouped_product_mma::shared_memory(blocking(), static_cast<int>(E), weight::plain_stage_bytes(n, k)).bytes);
}

tune::SearchSpace product_mma_candidates(const ProductSize& size, const gpu::DeviceFacts& facts) {
    tune::SearchSpace space;
    for (const RatedTile& rated : product_tiles) space.push_back(product_candidate(rated, size, facts));
    const auto best = tune::heuristic_choice(space);
    for (const RatedTile& rated : further_product_tiles) {
        space.push_back(product_candidate(rated, size, facts));
        // No better than the best of the others without a measurement that says so.
        double& predicted = space.back().predicted_seconds;
        if (best) predicted = std::max(predicted, 1.02 * space[*best].predicted_seconds);
    }
    return space;
}

ProductTile product_tile(const tune::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {at("TILE_M"), at("TILE_N"), at("TILE_K"), at("WARPS_M"), at("WARPS_N"), at("STAGES"), at("MIN_BLOCKS")};
}

bool read_by_span(const Problem& problem, RowOrder rows, std::int64_t width, double tokens,
                  const gpu::DeviceFacts& facts) {
    const double bytes = tokens * static_cast<double>(width) * static_cast<double>(size_of(problem.dtype));
    return rows == RowOrder::token && bytes > static_cast<double>(facts.l2_bytes) / 2;
}

unsigned GradientTile::threads() const { return static_cast<unsigned>(lora_gradient_mma::threads(blocking())); }

unsigned GradientTile::shared_bytes(std::int64_t E) const {
    return static_cast<unsigned>(lora_gradient_mma::shared_memory(blocking(), static_cast<int>(E)).bytes);
}

tune::SearchSpace gradient_mma_candidates(const GradientSize& size, const gpu::DeviceFacts& facts) {
    // Memory-bound: many blocks with few stages hide the latency of the gathered rows best. Only the first of each rank
    // tile was measured against others (docs/lab/2026-11-23-portable.md, "What was tried").
    struct Rated {
        GradientTile tile;
        double efficiency;
    };
    constexpr std::array tiles{
        Rated{{128, 16, 32, 4, 3, 6}, 1.00},  Rated{{128, 16, 32, 4, 6, 3}, 0.80}, Rated{{128, 16, 32, 4, 4, 4}, 0.90},
        Rated{{64, 16, 32, 4, 4, 6}, 0.85},   Rated{{256, 16, 32, 8, 3, 3}, 0.90}, Rated{{128, 16, 64, 4, 3, 3}, 0.85},
        Rated{{128, 32, 32, 4, 3, 4}, 1.00},  Rated{{128, 32, 32, 4, 5, 3}, 0.90}, Rated{{256, 32, 32, 8, 3, 2}, 0.90},
        Rated{{64, 32, 32, 4, 4, 4}, 0.85},   Rated{{128, 64, 32, 4, 3, 3}, 1.00}, Rated{{128, 64, 32, 4, 4, 2}, 0.90},
        Rated{{64, 64, 32, 4, 4, 4}, 0.85},   Rated{{256, 64, 32, 8, 3, 1}, 0.85}, Rated{{128, 128, 32, 4, 4, 2}, 1.00},
        Rated{{128, 128, 32, 4, 3, 2}, 0.95}, Rated{{64, 128, 32, 4, 4, 2}, 0.85},
    };
    tune::SearchSpace space;
    for (const Rated& rated : tiles) {
        const GradientTile& tile = rated.tile;
        // Each rank tile streams the wide operand once more; ranks that a tile has too many cost arithmetic only.
        const auto rank_tiles = static_cast<double>((size.R + tile.r - 1) / tile.r);
        const double idle = std::max(0.0, static_cast<double>(tile.r) / static_cast<double>(size.R) - 1);
        tune::Candidate candidate;
        candidate.name =
            fmt::format("mma_{}x{}x{}_w{}_s{}_b{}", tile.c, tile.r, tile.k, tile.warps, tile.stages, tile.min_blocks);
        candidate.configuration = {gradient_mma_family,
                                   {{"TILE_C", tile.c},
                                    {"TILE_R", tile.r},
                                    {"TILE_K", tile.k},
                                    {"WARPS", tile.warps},
                                    {"STAGES", tile.stages},
                                    {"MIN_BLOCKS", tile.min_blocks}}};
        candidate.predicted_seconds =
            predicted_seconds(0, size.bytes * rank_tiles * (1 + 0.1 * idle) / rated.efficiency, facts);
        candidate.shared_bytes = tile.shared_bytes(size.E);
        candidate.refusal = refusal(tile.shared_bytes(size.E), 1, facts);
        space.push_back(std::move(candidate));
    }
    return space;
}

unsigned GradientBulkTile::threads() const { return static_cast<unsigned>(lora_gradient_bulk::threads(blocking())); }

std::int64_t GradientBulkTile::span() const { return lora_gradient_bulk::span(blocking()); }

unsigned GradientBulkTile::shared_bytes(std::int64_t E, std::int64_t rank, bool gates) const {
    return static_cast<unsigned>(
        lora_gradient_bulk::shared_memory(blocking(), static_cast<int>(E), static_cast<int>(rank), gates).bytes);
}

tune::SearchSpace gradient_bulk_candidates(const GradientSize& size, const gpu::DeviceFacts& facts) {
    // As a share of gradient_mma_candidates', fitted to the shipped records of H100: with gates it pays the more the
    // more experts there are, and the fewer rows they have.
    const double efficiency =
        size.gates ? std::pow(static_cast<double>(size.E) / 40, 0.2) * (1 + 20 / std::max(1.0, size.rows_per_expert))
                   : 1.05;
    // Of those that are predicted alike the first is taken.
    constexpr std::array tiles{
        GradientBulkTile{128, 8, 8, 6},  GradientBulkTile{128, 16, 4, 6}, GradientBulkTile{128, 16, 8, 6},
        GradientBulkTile{128, 16, 8, 3}, GradientBulkTile{64, 32, 8, 8},  GradientBulkTile{64, 32, 8, 4},
        GradientBulkTile{64, 64, 7, 8},  GradientBulkTile{64, 64, 7, 4},
    };
    tune::SearchSpace space;
    for (const GradientBulkTile& tile : tiles) {
        const auto rank_tiles = static_cast<double>((size.R + tile.r - 1) / tile.r);
        const double idle = std::max(0.0, static_cast<double>(tile.r) / static_cast<double>(size.R) - 1);
        // Where one span is read after the other, two blocks with wide ones are best, but not with gates.
        const double fit = size.by_span && !size.gates && tile.warps == 8 && tile.stages == 3 ? 1.1 : 1.0;
        tune::Candidate candidate;
        candidate.name = fmt::format("bulk_{}x{}_w{}_s{}", tile.c, tile.r, tile.warps, tile.stages);
        candidate.configuration = {
            gradient_bulk_family,
            {{"TILE_C", tile.c}, {"TILE_R", tile.r}, {"WARPS", tile.warps}, {"STAGES", tile.stages}}};
        candidate.predicted_seconds =
            predicted_seconds(0, size.bytes * rank_tiles * (1 + 0.1 * idle) / (efficiency * fit), facts);
        candidate.shared_bytes = tile.shared_bytes(size.E, size.padded_rank, size.gates);
        if (facts.arch.number() < 90) {
            candidate.refusal = "bulk copies are an instruction of sm_90 and later, not of " + facts.arch.name();
        } else {
            candidate.refusal = refusal(static_cast<unsigned>(candidate.shared_bytes), 1, facts);
        }
        space.push_back(std::move(candidate));
    }
    return space;
}

GradientBulkTile gradient_bulk_tile(const tune::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {at("TILE_C"), at("TILE_R"), at("WARPS"), at("STAGES")};
}

GradientTile gradient_tile(const tune::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {at("TILE_C"), at("TILE_R"), at("TILE_K"), at("WARPS"), at("STAGES"), at("MIN_BLOCKS")};
}

}  // namespace smlora::families
