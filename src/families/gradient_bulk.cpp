#include "families/gradient_bulk.hpp"

#include "args/lora_gradient_bulk.h"
#include "families/roofline.hpp"
#include "families/shared_memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace smlora::families {
namespace {

constexpr const char* family_name = "lora_gradient_bulk";

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

tuning::SearchSpace candidates(const GradientWork& work, const gpu::DeviceFacts& facts) {
    const GradientSize size = gradient_size(work, facts);
    // As a share of that of gradient_mma, fitted to the shipped records of H100: with gates it pays the more the
    // more experts there are, and the fewer rows they have.
    const double efficiency =
        size.gates ? std::pow(static_cast<double>(size.E) / 40, 0.2) * (1 + 20 / std::max(1.0, size.rows_per_expert))
                   : 1.05;
    // Of those that are predicted alike the first is taken.
    constexpr std::array tiles{
        BulkTile{128, 8, 8, 6}, BulkTile{128, 16, 4, 6}, BulkTile{128, 16, 8, 6}, BulkTile{128, 16, 8, 3},
        BulkTile{64, 32, 8, 8}, BulkTile{64, 32, 8, 4},  BulkTile{64, 64, 7, 8},  BulkTile{64, 64, 7, 4},
    };
    tuning::SearchSpace space;
    for (const BulkTile& tile : tiles) {
        // Where one span is read after the other, two blocks with wide ones are best, but not with gates.
        const double fit = size.by_span && !size.gates && tile.warps == 8 && tile.stages == 3 ? 1.1 : 1.0;
        tuning::Candidate candidate;
        candidate.name = fmt::format("bulk_{}x{}_w{}_s{}", tile.c, tile.r, tile.warps, tile.stages);
        candidate.configuration = {
            family_name, {{"TILE_C", tile.c}, {"TILE_R", tile.r}, {"WARPS", tile.warps}, {"STAGES", tile.stages}}};
        candidate.predicted_seconds = predicted_seconds(0, bytes_moved(size, tile.r) / (efficiency * fit), facts);
        candidate.shared_bytes = tile.shared_bytes(size.E, size.padded_rank, size.gates);
        if (facts.arch.number() < 90) {
            candidate.refusal = "bulk copies are an instruction of sm_90 and later, not of " + facts.arch.name();
        } else {
            candidate.refusal = shared_memory_refusal(static_cast<unsigned>(candidate.shared_bytes), 1, facts);
        }
        space.push_back(std::move(candidate));
    }
    return space;
}

BulkTile tile_of(const tuning::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {at("TILE_C"), at("TILE_R"), at("WARPS"), at("STAGES")};
}

Step step_of(const GradientWork& work, const tuning::Configuration& configuration) {
    const BulkTile tile = tile_of(configuration);
    Step step;
    auto& spec = step.spec;
    spec.family = family_name;
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

const GradientFamily gradient_bulk{.name = family_name, .candidates = candidates, .step = step_of};

}  // namespace smlora::families
