#include "families/product_mma.hpp"

#include "args/grouped_product_mma.h"
#include "args/packed_weight.h"
#include "args/weight.h"
#include "families/packed.hpp"
#include "families/product_launch.hpp"
#include "families/roofline.hpp"
#include "families/shared_memory.hpp"
#include "scale_order.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>

namespace smlora::families {
namespace {

constexpr const char* mma_product_name = "grouped_product_mma";
constexpr const char* mma_packed_product_name = "grouped_product_mma_packed";

/// Blocking of grouped_product_mma.
struct ProductTile {
    int m, n, k;  ///< the block's tile: rows, outputs, depth of a pipeline stage
    int warps_m, warps_n;
    int stages;
    int min_blocks;  ///< resident blocks a multiprocessor that registers are allotted for

    [[nodiscard]] grouped_product_mma::Blocking blocking() const { return {m, n, k, warps_m, warps_n, stages}; }
    [[nodiscard]] unsigned threads() const { return static_cast<unsigned>(grouped_product_mma::threads(blocking())); }
    /// Dynamic shared memory.
    [[nodiscard]] unsigned shared_bytes(const ProductWork& work) const;
};

unsigned ProductTile::shared_bytes(const ProductWork& work) const {
    const auto memory = [&](int weights, int values) {
        const auto E = static_cast<int>(launched_experts(work));
        return static_cast<unsigned>(grouped_product_mma::shared_memory(blocking(), E, weights, values).bytes);
    };
    const int plain = weight::plain_stage_bytes(n, k);
    if (!work.product.packed) return memory(plain, 0);
    const WeightFormat& format = work.problem.weights;
    return memory(weight::mma_packed_stage_bytes(code_bits(format), scale_order(format), n, k), plain);
}

/// A tile as it was measured on an H200.
struct RatedTile {
    ProductTile tile;
    /// Share of the best tile's speed when it is full, weights output-contiguous and reduction-contiguous:
    /// docs/lab/2026-11-23-portable.md, "Tiles of the portable path".
    double efficiency[2];
    /// Of rank rows, share of the speed that copies and products allow: docs/lab/2026-11-30-ranks.md.
    double rank_rows;
};

constexpr std::array product_tiles{
    RatedTile{{128, 128, 32, 2, 2, 5, 2}, {1.00, 0.90}, 1.00},
    RatedTile{{128, 128, 64, 2, 2, 3, 2}, {0.96, 1.00}, 0.90},
    RatedTile{{128, 128, 32, 2, 2, 4, 2}, {0.97, 0.88}, 1.02},
    RatedTile{{64, 256, 32, 1, 4, 4, 2}, {0.93, 0.93}, 1.01},
    RatedTile{{64, 128, 64, 2, 2, 3, 3}, {0.86, 0.87}, 0.98},
    RatedTile{{32, 128, 64, 1, 4, 4, 3}, {0.60, 0.60}, 0.90},
    RatedTile{{16, 128, 64, 1, 4, 4, 3}, {0.40, 0.40}, 0.95},
    RatedTile{{64, 64, 64, 2, 2, 4, 3}, {0.60, 0.60}, 1.09},
    RatedTile{{64, 32, 64, 4, 1, 5, 2}, {0.40, 0.40}, 1.11},
    RatedTile{{64, 16, 64, 4, 1, 6, 2}, {0.25, 0.25}, 1.08},
    // For GPUs with 100 KiB a multiprocessor; not measured, ranked below the same shapes with more stages.
    RatedTile{{128, 128, 32, 2, 2, 3, 2}, {0.90, 0.82}, 1.02},
    RatedTile{{64, 128, 32, 2, 2, 3, 2}, {0.70, 0.70}, 0.95},
    RatedTile{{64, 16, 64, 4, 1, 3, 2}, {0.20, 0.20}, 1.00},
};

/// For the tuner to try, and where none of the others fits: slower where they were measured, or not measured at all.
constexpr std::array further_product_tiles{
    RatedTile{{128, 256, 64, 2, 4, 3, 1}, {0.92, 0.91}, 0.95},
    RatedTile{{128, 256, 32, 2, 4, 4, 1}, {0.90, 0.77}, 0.95},
    RatedTile{{256, 128, 32, 4, 2, 4, 1}, {0.83, 0.77}, 0.90},
    RatedTile{{64, 256, 32, 1, 4, 3, 2}, {0.88, 0.88}, 1.05},
    RatedTile{{64, 128, 64, 2, 2, 4, 2}, {0.84, 0.85}, 1.00},
    RatedTile{{64, 128, 32, 2, 2, 4, 3}, {0.69, 0.69}, 1.05},
    RatedTile{{32, 256, 32, 1, 4, 4, 2}, {0.55, 0.55}, 1.00},
    RatedTile{{16, 256, 64, 1, 4, 3, 2}, {0.38, 0.38}, 1.00},
    RatedTile{{128, 32, 64, 4, 1, 4, 2}, {0.33, 0.33}, 0.95},
    RatedTile{{128, 16, 64, 4, 1, 4, 2}, {0.20, 0.20}, 1.01},
    RatedTile{{32, 16, 64, 2, 1, 6, 4}, {0.31, 0.31}, 1.16},
};

/// Of products that decode: stages of whole blocks of scales. The efficiency is that with mxfp4, over that of the best
/// plain tile: docs/lab/2026-12-01-packed-mma.md.
constexpr std::array packed_tiles{
    RatedTile{{128, 256, 64, 2, 4, 3, 1}, {0.82, 0.82}, 1},
    RatedTile{{64, 128, 64, 1, 4, 3, 3}, {0.75, 0.75}, 1},
    RatedTile{{64, 128, 64, 2, 2, 4, 2}, {0.69, 0.69}, 1},
    RatedTile{{64, 64, 64, 2, 2, 4, 3}, {0.61, 0.61}, 1},
    RatedTile{{32, 128, 64, 1, 4, 4, 3}, {0.58, 0.58}, 1},
    RatedTile{{16, 128, 64, 1, 4, 3, 4}, {0.46, 0.46}, 1},
    RatedTile{{16, 128, 64, 1, 4, 4, 3}, {0.43, 0.43}, 1},
    // For GPUs with less shared memory, and wide scales.
    RatedTile{{128, 128, 64, 4, 2, 3, 1}, {0.62, 0.62}, 1},
    RatedTile{{64, 128, 64, 2, 2, 3, 1}, {0.65, 0.65}, 1},
    RatedTile{{32, 128, 64, 1, 4, 3, 1}, {0.47, 0.47}, 1},
    RatedTile{{16, 128, 64, 1, 4, 3, 1}, {0.38, 0.38}, 1},
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
    constexpr double least_share = 0.65;  // of the time that all of them take: docs/lab/2026-11-30-cost-model.md
    const double whole_rounds = std::floor(tiles / blocks);
    const double rest = tiles - whole_rounds * blocks;
    const double last_round = rest > 0 ? std::max(rest * last_to_mean(rest), least_share * blocks) : 0;
    return (whole_rounds * blocks + last_round) / tiles;
}

/// Columns of output tiles.
double column_tiles(const ProductTile& tile, const ProductSize& size) {
    return std::ceil(static_cast<double>(size.out) / tile.n);
}

/// What a tile takes more than one of mxfp4 does, in rows. By timings of an H200: docs/lab/2026-12-01-packed-mma.md.
double decoding_rows(const ProductWork& work) {
    if (!work.product.packed) return 0;
    switch (work.problem.weights.encoding) {
        case Encoding::nf4:
        case Encoding::fp4:
            return 14;
        case Encoding::nvfp4:
            return 10;
        case Encoding::fp8:
            return 5;
        case Encoding::mxfp8:
        case Encoding::int4:
            return 1;
        default:
            return 0;
    }
}

double projection_seconds(const RatedTile& rated, const ProductWork& work, const ProductSize& size,
                          const gpu::DeviceFacts& facts) {
    // Work of a tile beside its products, in rows: filling the pipeline and storing.
    const double overhead_rows = 12.0 + decoding_rows(work);
    const ProductTile& tile = rated.tile;
    const double tiles = static_cast<double>(size.E) * row_tiles(size.rows_per_expert, tile.m);
    const double columns = column_tiles(tile, size);
    const double flop = 2 * tiles * (tile.m + overhead_rows) * columns * tile.n * size.depth /
                        rated.efficiency[size.reduction_contiguous ? 1 : 0] *
                        slowest_to_mean(tiles * columns / facts.multiprocessors, tile.min_blocks);
    return predicted_seconds(flop / mma_flop_per_second(facts), size.bytes, facts);
}

/// Rank rows have few columns, so that a multiprocessor mostly copies. Fitted to an H200, ranks 4 to 256:
/// docs/lab/2026-11-30-ranks.md.
double rank_rows_seconds(const RatedTile& rated, const ProductWork& work, const ProductSize& size,
                         const gpu::DeviceFacts& facts) {
    constexpr double bytes_copied = 60.6e9;  // a second, by a multiprocessor; columns beyond the rank are copied, too
    // Of pieces of 64 bytes: of rows, which lie anywhere, and of weights.
    constexpr double cost_of_short_rows = 1.5;
    constexpr double cost_of_short_weights = 1.05;
    const ProductTile& tile = rated.tile;
    const bool short_pieces = tile.k < 64;
    const double rows = tile.m * (short_pieces ? cost_of_short_rows : 1) +
                        tile.n * (short_pieces && size.reduction_contiguous ? cost_of_short_weights : 1);
    const double steps = std::ceil(size.reduction / tile.k);
    const double copies = steps * 2 * rows * tile.k / bytes_copied;
    const double products = steps * 2 * tile.m * tile.n * tile.k * facts.multiprocessors / mma_flop_per_second(facts);
    // Rows that are read several times and do not stay in L2: docs/lab/2026-12-01-packed-mma.md.
    const bool reads_again = work.product.rows == RowOrder::token && work.problem.top_k > 1 &&
                             2 * work.tokens * size.reduction > static_cast<double>(facts.l2_bytes);
    constexpr double cost_of_deep_pipelines = 1.12;
    const double together =
        std::max(copies, products) / rated.rank_rows * (reads_again && tile.stages >= 6 ? cost_of_deep_pipelines : 1);
    // A block alone on a multiprocessor copies and multiplies in turns.
    constexpr double exposed_products = 0.5;
    const double alone = copies + exposed_products * products;
    constexpr double seconds_of_end = 0.1e-6;  // of a round
    const auto round = [&](double blocks) { return std::max(blocks * together, alone) + seconds_of_end; };

    constexpr double sharpness = 4;
    const double memory = size.bytes / facts.memory_bytes_per_second;
    const double mean = static_cast<double>(size.E) * row_tiles(size.rows_per_expert, tile.m);
    const double columns = column_tiles(tile, size);
    if (work.followed) return longer_of(mean * columns / facts.multiprocessors * together, memory, sharpness);
    // One row tile more can be a round more.
    const double deviation = 0.25 * std::sqrt(static_cast<double>(size.E));
    double seconds = 0;
    for (const double counted : {std::max(0.5, mean - deviation), mean + deviation}) {
        constexpr double rounding = 1e-9;  // of a whole number
        const double tiles = counted * columns / facts.multiprocessors;
        const double whole_rounds = std::floor(tiles / tile.min_blocks + rounding);
        const double rest = tiles - whole_rounds * tile.min_blocks;
        const double last_blocks = std::ceil(rest - rounding);
        // Each round moves its tiles' share of the bytes.
        const double last_memory = std::max(0.0, rest) / tiles * memory;
        seconds += longer_of(whole_rounds * round(tile.min_blocks), memory - last_memory, sharpness) / 2;
        if (last_blocks > 0) seconds += longer_of(round(last_blocks), last_memory, sharpness) / 2;
    }
    return seconds;
}

const char* family_name(const ProductWork& work) {
    return work.product.packed ? mma_packed_product_name : mma_product_name;
}

tuning::Candidate product_candidate(const RatedTile& rated, const ProductWork& work, const ProductSize& size,
                                    const gpu::DeviceFacts& facts) {
    const ProductTile& tile = rated.tile;
    const bool rank_rows = work.product.kind == Product::Kind::rank_rows;
    tuning::Candidate candidate;
    candidate.name = fmt::format("{}_{}x{}x{}_w{}x{}_s{}_b{}", work.product.packed ? "mma_packed" : "mma", tile.m,
                                 tile.n, tile.k, tile.warps_m, tile.warps_n, tile.stages, tile.min_blocks);
    candidate.configuration = {family_name(work),
                               {{"TILE_M", tile.m},
                                {"TILE_N", tile.n},
                                {"TILE_K", tile.k},
                                {"WARPS_M", tile.warps_m},
                                {"WARPS_N", tile.warps_n},
                                {"STAGES", tile.stages},
                                {"MIN_BLOCKS", tile.min_blocks}}};
    constexpr double seconds_if_followed = 1.5e-6;  // of the launch
    candidate.predicted_seconds =
        (work.followed ? seconds_if_followed : seconds_of_launch) +
        (rank_rows ? rank_rows_seconds(rated, work, size, facts) : projection_seconds(rated, work, size, facts));
    candidate.shared_bytes = tile.shared_bytes(work);
    candidate.refusal = shared_memory_refusal(tile.shared_bytes(work), tile.min_blocks, facts);
    return candidate;
}

tuning::SearchSpace mma_product_candidates(const ProductWork& work, const gpu::DeviceFacts& facts) {
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

tuning::SearchSpace mma_packed_product_candidates(const ProductWork& work, const gpu::DeviceFacts& facts) {
    tuning::SearchSpace space;
    if (!can_multiply_codes(work.problem)) return space;
    const ProductSize size = product_size(work);
    for (const RatedTile& rated : packed_tiles) space.push_back(product_candidate(rated, work, size, facts));
    return space;
}

ProductTile tile_of(const tuning::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {at("TILE_M"), at("TILE_N"), at("TILE_K"), at("WARPS_M"), at("WARPS_N"), at("STAGES"), at("MIN_BLOCKS")};
}

/// As portable products are launched, with codes and their scales.
class MmaPackedLaunch final : public ProductLaunch {
 public:
    explicit MmaPackedLaunch(ProductWork work) : work_(std::move(work)) {}

    void launch(const Launcher& launcher, const Step& step, const GroupedProductArgs& product, const Adapter&,
                const PackedParts& parts, gpu::Begin) const override {
        const GroupedProductMmaPackedArgs args{
            .product = product, .scales = arranged_scales(work_, parts.scales), .table = parts.table};
        launcher.launch(step, most_tiles(step, product.M, work_.problem.E), args);
    }

 private:
    ProductWork work_;
};

Step mma_product_step(const ProductWork& work, const tuning::Configuration& configuration) {
    const ProductTile tile = tile_of(configuration);
    Step step;
    auto& spec = step.spec;
    spec.family = family_name(work);
    spec.threads = tile.threads();
    spec.min_blocks = static_cast<unsigned>(tile.min_blocks);
    spec.dynamic_shared = tile.shared_bytes(work);
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
    if (work.product.packed) {
        step.product_launch = std::make_shared<MmaPackedLaunch>(work);
    } else {
        step.product_launch = portable_launch(launched_experts(work));
    }
    return step;
}

}  // namespace

const ProductFamily product_mma{
    .name = mma_product_name,
    .instructions = "mma",
    .makes_rank_products = true,
    .candidates = mma_product_candidates,
    .step = mma_product_step,
};

const ProductFamily product_mma_packed{
    .name = mma_packed_product_name,
    .instructions = "mma",
    .multiplies_codes = true,
    .candidates = mma_packed_product_candidates,
    .step = mma_product_step,
};

}  // namespace smlora::families
