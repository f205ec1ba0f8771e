#include "families/gradient_bulk.hpp"

#include "args/lora_gradient_bulk.h"
#include "families/shared_memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace smlora::families {
namespace {

constexpr const char* bulk_name = "lora_gradient_bulk";

/// Blocking of lora_gradient_bulk.
struct BulkTile {
    int c, r;  ///< columns and ranks that a warp sums at once
    int warps;
    int stages;  ///< of 16 rows

    [[nodiscard]] lora_gradient_bulk::Blocking blocking() const { return {c, r, warps, stages}; }
    [[nodiscard]] unsigned threads() const { return static_cast<unsigned>(lora_gradient_bulk::threads(blocking())); }
    /// Columns of an item.
    [[nodiscard]] std::int64_t span() const { return lora_gradient_bulk::span(blocking()); }
    /// Dynamic shared memory. `rank`: padded.
    [[nodiscard]] unsigned shared_bytes(std::int64_t E, std::int64_t rank, bool gates) const;
};

unsigned BulkTile::shared_bytes(std::int64_t E, std::int64_t rank, bool gates) const {
    return static_cast<unsigned>(
        lora_gradient_bulk::shared_memory(blocking(), static_cast<int>(E), static_cast<int>(rank), gates).bytes);
}

/// Fitted to an H200, ranks 1 to 16, 1 to 65,536 tokens and 8 to 1024 experts: docs/lab/2026-11-30-cost-model.md.
double predicted(const GradientWork& work, const GradientSize& size, const BulkTile& tile, unsigned shared_bytes,
                 const gpu::DeviceFacts& facts) {
    // What the multiprocessors stream together, as a multiple of the memory's speed, by which it is taken to grow on
    // GPUs that were not measured.
    constexpr double streamed = 1.4;
    constexpr double cost_of_gates = 1.22;
    constexpr double seconds_of_sums = 0.18e-6;  // of 128 columns of 16 ranks
    const std::int64_t rank_tiles = (size.R + tile.r - 1) / tile.r;
    // Registers are there for two.
    const int blocks = shared_memory_refusal(shared_bytes, 2, facts).empty() ? 2 : 1;
    const SpanSize spans =
        span_size(work, {.columns = tile.span(), .unit = tile.c, .rank_tiles = rank_tiles, .blocks = blocks}, facts);
    // A tile of fewer ranks takes no less.
    const double ranks = std::max(tile.r, 16) / 16.0;
    const double rows = spans.steps(lora_gradient_bulk::step_rows) * lora_gradient_bulk::step_rows;
    const double cost_of_bytes = (size.gates ? cost_of_gates : 1) / (streamed * facts.memory_bytes_per_second);
    double seconds = 0;
    for (const SpanSize::Side& side : spans.sides) {
        seconds += side.spans * side.columns * ranks *
                   (2 * rows * cost_of_bytes + spans.chunks * seconds_of_sums / 128 / facts.multiprocessors);
    }
    return predicted_gradient_seconds(spans.last_to_mean * seconds, spans.bytes, facts);
}

tuning::SearchSpace bulk_candidates(const GradientWork& work, const gpu::DeviceFacts& facts) {
    const GradientSize size = gradient_size(work);
    // Of those that are predicted alike the first is taken.
    constexpr std::array tiles{
        BulkTile{128, 8, 8, 6}, BulkTile{128, 16, 4, 6}, BulkTile{128, 16, 8, 6}, BulkTile{128, 16, 8, 3},
        BulkTile{64, 32, 8, 8}, BulkTile{64, 32, 8, 4},  BulkTile{64, 64, 7, 8},  BulkTile{64, 64, 7, 4},
    };
    tuning::SearchSpace space;
    for (const BulkTile& tile : tiles) {
        tuning::Candidate candidate;
        candidate.name = fmt::format("bulk_{}x{}_w{}_s{}", tile.c, tile.r, tile.warps, tile.stages);
        candidate.configuration = {
            bulk_name, {{"TILE_C", tile.c}, {"TILE_R", tile.r}, {"WARPS", tile.warps}, {"STAGES", tile.stages}}};
        const unsigned shared_bytes = tile.shared_bytes(size.E, size.padded_rank, size.gates);
        candidate.predicted_seconds = predicted(work, size, tile, shared_bytes, facts);
        candidate.shared_bytes = shared_bytes;
        if (facts.arch.number() < 90) {
            candidate.refusal = "bulk copies are an instruction of sm_90 and later, not of " + facts.arch.name();
        } else {
            candidate.refusal = shared_memory_refusal(shared_bytes, 1, facts);
        }
        space.push_back(std::move(candidate));
    }
    return space;
}

BulkTile bulk_tile(const tuning::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {at("TILE_C"), at("TILE_R"), at("WARPS"), at("STAGES")};
}

Step bulk_step(const GradientWork& work, const tuning::Configuration& configuration) {
    const BulkTile tile = bulk_tile(configuration);
    Step step;
    auto& spec = step.spec;
    spec.family = bulk_name;
    spec.threads = tile.threads();
    spec.dynamic_shared = tile.shared_bytes(work.problem.E, padded_rank(work.problem), work.problem.gates);
    spec.constants = gradient_pair_constants(work);
    auto& constants = spec.constants;
    constants.emplace_back("TILE_C", tile.c);
    constants.emplace_back("TILE_R", tile.r);
    constants.emplace_back("WARPS", tile.warps);
    constants.emplace_back("STAGES", tile.stages);
    step.column_tiles = gradient_tiles(work, tile.span(), tile.r);
    return step;
}

}  // namespace

const GradientFamily gradient_bulk{.name = bulk_name, .candidates = bulk_candidates, .step = bulk_step};

}  // namespace smlora::families
