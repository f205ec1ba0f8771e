#include "families/gradient_mma.hpp"

#include "args/lora_gradient_mma.h"
#include "families/shared_memory.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace smlora::families {
namespace {

constexpr const char* mma_gradient_name = "lora_gradient_mma";

/// Blocking of lora_gradient_mma.
struct GradientTile {
    int c, r, k;  ///< columns of the wide operand, ranks, rows of a pipeline stage
    int warps;
    int stages;
    int min_blocks;

    [[nodiscard]] lora_gradient_mma::Blocking blocking() const { return {c, r, k, warps, stages}; }
    [[nodiscard]] unsigned threads() const { return static_cast<unsigned>(lora_gradient_mma::threads(blocking())); }
    /// Dynamic shared memory.
    [[nodiscard]] unsigned shared_bytes(std::int64_t E) const;
};

unsigned GradientTile::shared_bytes(std::int64_t E) const {
    return static_cast<unsigned>(lora_gradient_mma::shared_memory(blocking(), static_cast<int>(E)).bytes);
}

tuning::SearchSpace mma_gradient_candidates(const GradientWork& work, const gpu::DeviceFacts& facts) {
    const GradientSize size = gradient_size(work);
    // By an H200 with one token, where there are hardly any bytes.
    constexpr double seconds_of_tile = 0.6e-6;  // its beginning, and its sums
    constexpr std::int64_t tile_columns = 128;  // of most
    // Tiles of 16 ranks are memory-bound: many blocks with few stages hide the latency of the gathered rows best. Only
    // the first of these was measured against others (docs/lab/2026-11-23-portable.md, "What was tried"). The others'
    // are of an H200, 16,384 tokens: docs/lab/2026-11-30-growth.md.
    struct Rated {
        GradientTile tile;
        double efficiency;
    };
    constexpr std::array tiles{
        Rated{{128, 16, 32, 4, 3, 6}, 1.00},  Rated{{128, 16, 32, 4, 6, 3}, 0.80}, Rated{{128, 16, 32, 4, 4, 4}, 0.90},
        Rated{{64, 16, 32, 4, 4, 6}, 0.85},   Rated{{256, 16, 32, 8, 3, 3}, 0.90}, Rated{{128, 16, 64, 4, 3, 3}, 0.85},
        Rated{{128, 32, 32, 4, 3, 4}, 0.72},  Rated{{128, 32, 32, 4, 5, 3}, 0.58}, Rated{{256, 32, 32, 8, 3, 2}, 0.67},
        Rated{{64, 32, 32, 4, 4, 4}, 0.52},   Rated{{128, 64, 32, 4, 3, 3}, 0.50}, Rated{{128, 64, 32, 4, 4, 2}, 0.38},
        Rated{{64, 64, 32, 4, 4, 4}, 0.45},   Rated{{256, 64, 32, 8, 3, 1}, 0.34}, Rated{{128, 128, 32, 4, 4, 2}, 0.20},
        Rated{{128, 128, 32, 4, 3, 2}, 0.20}, Rated{{64, 128, 32, 4, 4, 2}, 0.23},
    };
    tuning::SearchSpace space;
    for (const Rated& rated : tiles) {
        const GradientTile& tile = rated.tile;
        tuning::Candidate candidate;
        candidate.name =
            fmt::format("mma_{}x{}x{}_w{}_s{}_b{}", tile.c, tile.r, tile.k, tile.warps, tile.stages, tile.min_blocks);
        candidate.configuration = {mma_gradient_name,
                                   {{"TILE_C", tile.c},
                                    {"TILE_R", tile.r},
                                    {"TILE_K", tile.k},
                                    {"WARPS", tile.warps},
                                    {"STAGES", tile.stages},
                                    {"MIN_BLOCKS", tile.min_blocks}}};
        const SpanSize cut = span_size(
            work, {.columns = tile_columns, .unit = tile_columns, .rank_tiles = (size.R + tile.r - 1) / tile.r}, facts);
        const double begun = cut.chunks * (cut.sides[0].spans + cut.sides[1].spans);
        const double seconds =
            begun * seconds_of_tile / facts.multiprocessors + bytes_moved(size, tile.r) / facts.memory_bytes_per_second;
        candidate.predicted_seconds =
            predicted_gradient_seconds(cut.last_to_mean * seconds / rated.efficiency, 0, facts);
        candidate.shared_bytes = tile.shared_bytes(size.E);
        candidate.refusal = shared_memory_refusal(tile.shared_bytes(size.E), 1, facts);
        space.push_back(std::move(candidate));
    }
    return space;
}

GradientTile mma_gradient_tile(const tuning::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {at("TILE_C"), at("TILE_R"), at("TILE_K"), at("WARPS"), at("STAGES"), at("MIN_BLOCKS")};
}

Step mma_gradient_step(const GradientWork& work, const tuning::Configuration& configuration) {
    const GradientTile tile = mma_gradient_tile(configuration);
    Step step;
    auto& spec = step.spec;
    spec.family = mma_gradient_name;
    spec.threads = tile.threads();
    spec.min_blocks = static_cast<unsigned>(tile.min_blocks);
    spec.dynamic_shared = tile.shared_bytes(work.problem.E);
    spec.constants = gradient_pair_constants(work);
    auto& constants = spec.constants;
    constants.emplace_back("TILE_C", tile.c);
    constants.emplace_back("TILE_R", tile.r);
    constants.emplace_back("TILE_K", tile.k);
    constants.emplace_back("WARPS", tile.warps);
    constants.emplace_back("STAGES", tile.stages);
    step.column_tiles = gradient_tiles(work, tile.c, tile.r);
    return step;
}

}  // namespace

const GradientFamily gradient_mma{
    .name = mma_gradient_name, .candidates = mma_gradient_candidates, .step = mma_gradient_step};

}  // namespace smlora::families
