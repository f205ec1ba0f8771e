#include "families/wgmma_blocking.hpp"

#include "args/weight.h"
#include "families/roofline.hpp"
#include "util/environment.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

namespace smlora::families {
namespace {

using grouped_product_wgmma::rank_depth;
using grouped_product_wgmma::step_depth;
using grouped_product_wgmma::tile_columns;

struct Rows {
    int tile_rows, stages, staging_rows, row_step;
    bool pairs;  ///< also in clusters of two
};

/// Stages hide the memory's latency, staging lets the output leave under the next tile's products: shared memory has
/// room for one more stage or for the whole tile. In steps of 8 rows there are twice as many instructions to compile,
/// which pays where rows are what there is most of.
constexpr std::array row_options{Rows{144, 4, 48, 8, true},  Rows{144, 3, 144, 8, false}, Rows{128, 4, 64, 16, false},
                                 Rows{96, 4, 96, 16, false}, Rows{64, 5, 48, 16, false},  Rows{32, 5, 32, 16, false}};

/// The same where rank rows are made on the way: the rank matrix takes room in each stage, for which less is staged or
/// there is a stage less.
WgmmaBlocking with_rank_rows(WgmmaBlocking blocking, std::int64_t E, std::int64_t rank, int shared_bytes) {
    constexpr int least_staging_rows = 32;
    const int depth = rank_depth(static_cast<int>(rank));
    blocking.makes_rank_rows = true;
    // Registers for the rank rows of a third m64 are there at the least depth only.
    blocking.tile_rows = std::min(blocking.tile_rows, depth > 32 ? 112 : depth > 16 ? 128 : 144);
    const int most_staging_rows = std::min(blocking.staging_rows, blocking.tile_rows);
    for (; blocking.stages > 2; --blocking.stages) {
        for (blocking.staging_rows = most_staging_rows; blocking.staging_rows >= least_staging_rows;
             blocking.staging_rows -= 16) {
            if (grouped_product_wgmma::rank_rows_fit(blocking.blocking(), static_cast<int>(rank)) &&
                blocking.shared_bytes(E, rank) <= shared_bytes) {
                return blocking;
            }
        }
    }
    return blocking;
}

/// Seconds that a multiprocessor spends on an expert with `rows` rows.
double expert_seconds(double rows, const ProductSize& size, const WgmmaBlocking& blocking, std::int64_t rank,
                      const gpu::DeviceFacts& facts) {
    constexpr double bytes_from_l2 = 10e12;     // a second, all multiprocessors together
    constexpr double seconds_between = 0.6e-6;  // until the next tile's products: rounding, staging, filling
    constexpr double share_of_peak = 0.95;
    const double units = std::ceil(rows / (blocking.tile_rows * blocking.cluster));
    const double tiles = units * blocking.cluster;
    const int height =
        grouped_product_wgmma::whole_height(static_cast<int>(std::ceil(rows / tiles)), blocking.row_step);
    const double flop = 2 * height * tile_columns * size.depth;
    const double bytes = 2 * (tile_columns / blocking.cluster + height) * size.depth;
    const double tile =
        std::max(flop / (share_of_peak * facts.tensor_flop_per_second), bytes / bytes_from_l2) * facts.multiprocessors +
        seconds_between;
    double seconds = std::ceil(static_cast<double>(size.out) / tile_columns) * tile;
    if (blocking.makes_rank_rows) {
        // Beside the first column tile, 128 rows more on the m side; then rank rows are written before they are used.
        constexpr double seconds_to_write = 4e-6;  // an estimate: docs/lab/2026-11-24-hopper.md
        seconds += static_cast<double>(rank_depth(static_cast<int>(rank))) / 100 * tile + seconds_to_write;
    }
    // Blocks that share weights run apart, but for those of a cluster, and with an adapter more than without; then
    // weights are read again. By the records of the H100 of 2026-11-26; with many row tiles it makes no difference.
    if (rank > 0 && blocking.cluster == 1 && tiles > 1 && tiles <= 20) {
        seconds *= 1 + 0.1 * std::min(1.0, static_cast<double>(size.depth) / 6000);
    }
    return tiles * seconds;
}

/// Rows of an expert scatter around the mean like tokens drawn by chance.
double predicted(const ProductSize& size, const WgmmaBlocking& blocking, std::int64_t rank,
                 const gpu::DeviceFacts& facts) {
    constexpr std::array deviations{-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5};
    const double busy = 1.0 - std::exp(-size.rows_per_expert);
    double seconds = 0;
    for (const double deviation : deviations) {
        const double rows = size.rows_per_expert / busy + deviation * std::sqrt(size.rows_per_expert);
        seconds += expert_seconds(std::max(1.0, std::round(rows)), size, blocking, rank, facts);
    }
    seconds *= busy * static_cast<double>(size.E) / deviations.size() / facts.multiprocessors;
    return predicted_seconds(seconds, size.bytes, facts);
}

std::string refusal_of_all(const ProductKernel& product, const gpu::DeviceFacts& facts) {
    if (facts.arch.name() != "sm_90a") return "wgmma is an instruction of sm_90a, not of " + facts.arch.name();
    if (product.red <= step_depth) {
        return fmt::format("the reduction of {} is a single step of {}", product.red, step_depth);
    }
    if (named_instructions() == "mma") return "SMLORA_INSTRUCTIONS is mma";
    return {};
}

tune::Candidate candidate_of(const WgmmaBlocking& blocking) {
    tune::Candidate candidate;
    candidate.name = fmt::format("wgmma_{}_by{}_s{}_{}{}{}{}", blocking.tile_rows, blocking.row_step, blocking.stages,
                                 blocking.staging_rows, blocking.cluster > 1 ? "_pairs" : "",
                                 blocking.makes_rank_rows ? "_rank_rows" : "", blocking.bands ? "_bands" : "");
    candidate.configuration = {product_wgmma_family,
                               {{"TILE_ROWS", blocking.tile_rows},
                                {"STAGES", blocking.stages},
                                {"STAGING_ROWS", blocking.staging_rows},
                                {"ROW_STEP", blocking.row_step},
                                {"CLUSTER", blocking.cluster},
                                {"MAKES_RANK_ROWS", blocking.makes_rank_rows},
                                {"BANDS", blocking.bands}}};
    return candidate;
}

}  // namespace

std::string named_instructions() {
    const std::string named = util::environment("SMLORA_INSTRUCTIONS").value_or("");
    if (!named.empty() && named != "mma" && named != "wgmma") {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("SMLORA_INSTRUCTIONS: expected mma or wgmma, got {}", named));
    }
    return named;
}

int WgmmaBlocking::shared_bytes(std::int64_t E, std::int64_t rank) const {
    return static_cast<int>(grouped_product_wgmma::shared_memory(blocking(), static_cast<int>(E),
                                                                 weight::plain_stage_bytes(tile_columns, step_depth),
                                                                 static_cast<int>(rank))
                                .bytes);
}

tune::SearchSpace wgmma_candidates(const Problem& problem, const ProductKernel& product, const ProductSize& size,
                                   const gpu::DeviceFacts& facts) {
    const std::string refusal = refusal_of_all(product, facts);
    const std::int64_t rank = product.rank > 0 ? padded_rank(problem) : 0;
    tune::SearchSpace space;
    const auto add = [&](const WgmmaBlocking& blocking) {
        tune::Candidate candidate = candidate_of(blocking);
        // What was made smaller may be what another was made to.
        if (std::any_of(space.begin(), space.end(),
                        [&](const tune::Candidate& other) { return other.name == candidate.name; })) {
            return;
        }
        candidate.predicted_seconds = predicted(size, blocking, rank, facts);
        candidate.shared_bytes = blocking.shared_bytes(problem.E, rank);
        candidate.refusal = refusal;
        if (refusal.empty() && candidate.shared_bytes > facts.shared_bytes_per_block) {
            candidate.refusal = fmt::format("a block needs {} bytes of shared memory and {} has {}",
                                            candidate.shared_bytes, facts.name, facts.shared_bytes_per_block);
        }
        space.push_back(std::move(candidate));
    };
    // Rank rows made on the way come first: a pass over the rows less.
    for (const bool makes : {true, false}) {
        if (makes && (rank == 0 || rank > 64)) continue;
        for (const Rows& option : row_options) {
            for (const int cluster : {1, 2}) {
                if (cluster > 1 && !option.pairs) continue;
                WgmmaBlocking blocking{option.tile_rows, option.row_step, option.stages, option.staging_rows,
                                       cluster,          false,           false};
                if (makes) blocking = with_rank_rows(blocking, problem.E, rank, facts.shared_bytes_per_block);
                add(blocking);
                // Without clusters, blocks that share weights would run apart.
                blocking.bands = makes && cluster > 1 && product.out > tile_columns;
                if (blocking.bands) add(blocking);
            }
        }
    }
    return space;
}

WgmmaBlocking wgmma_blocking(const tune::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {at("TILE_ROWS"),    at("ROW_STEP"), at("STAGES"),
            at("STAGING_ROWS"), at("CLUSTER"),  at("MAKES_RANK_ROWS") != 0,
            at("BANDS") != 0};
}

bool makes_rank_rows(const tune::Configuration& configuration) {
    return configuration.family == product_wgmma_family && configuration.at("MAKES_RANK_ROWS") != 0;
}

}  // namespace smlora::families
