#include "families/product_wgmma.hpp"

#include "args/grouped_product_wgmma.h"
#include "args/weight.h"
#include "families/product_launch.hpp"
#include "families/roofline.hpp"
#include "families/type_names.hpp"
#include "families/wgmma_boxes.hpp"
#include "gpu/driver.hpp"
#include "gpu/tensor_map.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

namespace smlora::families {
namespace {

constexpr const char* wgmma_product_name = "grouped_product_wgmma";

using grouped_product_wgmma::step_depth;
using grouped_product_wgmma::tile_columns;

/// Of all blockings.
constexpr int least_tile_rows = 32;

/// Blocking of one kernel.
struct Blocking {
    int tile_rows;  ///< at most
    int row_step;   ///< rows are multiplied in multiples of it
    int stages;
    int staging_rows;  ///< of the output, on their way to memory
    int cluster;
    bool makes_rank_rows = false;  ///< rather than reading what another kernel made
    /// The first column tiles, which make the rank rows, come band of experts by band of experts, rather than all of
    /// them before all others. Another order for the same kernel.
    bool bands = false;
    bool weights_once = false;  ///< they leave L2 before anything else does

    /// As the kernel knows it.
    [[nodiscard]] grouped_product_wgmma::Blocking of_kernel() const {
        return {tile_rows, stages, staging_rows, cluster, makes_rank_rows};
    }
    /// Dynamic shared memory. `rank`: padded; 0: no adapter.
    [[nodiscard]] int shared_bytes(std::int64_t E, std::int64_t rank) const;
};

/// Depth of one step over the rank.
constexpr int rank_depth(std::int64_t rank) { return grouped_product_wgmma::rank_depth(static_cast<int>(rank)); }

int Blocking::shared_bytes(std::int64_t E, std::int64_t rank) const {
    return static_cast<int>(grouped_product_wgmma::shared_memory(of_kernel(), static_cast<int>(E),
                                                                 weight::plain_stage_bytes(tile_columns, step_depth),
                                                                 static_cast<int>(rank))
                                .bytes);
}

struct Rows {
    int tile_rows, stages, staging_rows, row_step;
    bool often;  ///< the best for most: also in clusters of two, and with weights that leave L2 first
};

/// Stages hide the memory's latency, staging lets the output leave under the next tile's products: shared memory has
/// room for one more stage or for the whole tile. In steps of 8 rows there are twice as many instructions to compile,
/// which pays for kernels that most problems use.
constexpr std::array row_options{Rows{144, 4, 48, 8, true},   Rows{144, 3, 144, 8, false}, Rows{160, 4, 32, 8, false},
                                 Rows{128, 4, 64, 16, false}, Rows{96, 4, 96, 16, false},  Rows{64, 5, 48, 16, false},
                                 Rows{32, 5, 32, 16, false}};

/// Above it there is no room for rank rows made on the way: with 160 rows their kernels compile without a spill at 16
/// ranks alone, and then there is no shared memory for four stages and two slots of the staging.
constexpr int most_rows_with_rank_rows = 144;

/// The same where rank rows are made on the way: the rank matrix takes room in each stage, for which less is staged or
/// there is a stage less.
Blocking with_rank_rows(Blocking blocking, std::int64_t E, std::int64_t rank, int shared_bytes) {
    constexpr int least_staging_rows = 32;
    const int depth = rank_depth(rank);
    blocking.makes_rank_rows = true;
    // Registers for the rank rows of a third m64 are there at the least depth only.
    blocking.tile_rows = std::min(blocking.tile_rows, depth > 32 ? 112 : depth > 16 ? 128 : most_rows_with_rank_rows);
    const int most_staging_rows = std::min(blocking.staging_rows, blocking.tile_rows);
    for (; blocking.stages > 2; --blocking.stages) {
        for (blocking.staging_rows = most_staging_rows; blocking.staging_rows >= least_staging_rows;
             blocking.staging_rows -= 16) {
            if (grouped_product_wgmma::rank_rows_fit(blocking.of_kernel(), static_cast<int>(rank)) &&
                blocking.shared_bytes(E, rank) <= shared_bytes) {
                return blocking;
            }
        }
    }
    return blocking;
}

/// Seconds for which a step's products wait for its copies. One stage is multiplied from and the one before is given
/// back late, so copies begin as many steps ahead as there are stages but for two. Their times scatter evenly up to the
/// longest. By three stages beside four on the H200: 1 to 3 % at 144 rows, 9 % at 128, 12 to 17 % at 112.
double seconds_late(int stages, double step_seconds) {
    constexpr double longest = 1.05e-6;
    constexpr double spread = 1e-6;
    const double late = std::max(0.0, longest - (stages - 2) * step_seconds);
    return late * late / (2 * spread);
}

/// Seconds from a tile's products to the next tile's: rounding, staging, filling.
double seconds_between_tiles(const Blocking& blocking, int height) {
    // The estimate of rank rows' cost has their little staging in it.
    if (blocking.makes_rank_rows) return 0.6e-6;
    constexpr int enough_rows = 48;
    const int missing_rows = std::max(0, std::min(height, enough_rows) - blocking.staging_rows);
    return 0.6e-6 + 0.13e-6 * missing_rows / grouped_product_wgmma::slot_rows;
}

/// What an expert takes, on average over those that there may be.
struct ExpertCost {
    double tiles = 0;         ///< of rows
    double seconds = 0;       ///< of a multiprocessor
    double rank_seconds = 0;  ///< of those, that one tile spends on making its rank rows

    void add(const ExpertCost& other) {
        tiles += other.tiles;
        seconds += other.seconds;
        rank_seconds += other.rank_seconds;
    }
};

/// Of one with `rows` rows.
ExpertCost expert_cost(double rows, const ProductSize& size, const Blocking& blocking, std::int64_t rank,
                       const gpu::DeviceFacts& facts) {
    constexpr double bytes_from_l2 = 10e12;  // a second, all multiprocessors together
    constexpr double share_of_peak = 0.95;
    const double units = std::ceil(rows / (blocking.tile_rows * blocking.cluster));
    const double tiles = units * blocking.cluster;
    const int height =
        grouped_product_wgmma::whole_height(static_cast<int>(std::ceil(rows / tiles)), blocking.row_step);
    const double flop = 2 * height * tile_columns * step_depth;
    const double bytes = 2 * (tile_columns / blocking.cluster + height) * step_depth;
    constexpr double sharpness = 8;  // of products and the copies that they wait for
    const double step =
        longer_of(flop / (share_of_peak * facts.tensor_flop_per_second), bytes / bytes_from_l2, sharpness) *
        facts.multiprocessors;
    const double tile = size.depth / step_depth * (step + seconds_late(blocking.stages, step)) +
                        seconds_between_tiles(blocking, height);
    double seconds = std::ceil(static_cast<double>(size.out) / tile_columns) * tile;
    double rank_seconds = 0;
    if (blocking.makes_rank_rows) {
        // Beside the first column tile, 128 rows more on the m side; then rank rows are written before they are used.
        constexpr double seconds_to_write = 4e-6;  // an estimate: docs/lab/2026-11-24-hopper.md
        rank_seconds = static_cast<double>(rank_depth(rank)) / 100 * tile + seconds_to_write;
        seconds += rank_seconds;
    }
    // Blocks that share weights run apart, but for those of a cluster, and with an adapter more than without; then
    // weights are read again. By the records of the H100 of 2026-11-26 and of the H200 of 2026-11-30.
    if (rank > 0 && blocking.cluster == 1 && tiles > 1) {
        seconds *= 1 + 0.08 * std::min(1.0, static_cast<double>(size.depth) / 6000);
    }
    // The warps that multiply have nearly all registers, those that copy and store hardly any: 1 to 3 % in
    // docs/lab/2026-11-29-gradients.md.
    constexpr double cost_of_most_rows = 1.03;
    if (blocking.tile_rows > most_rows_with_rank_rows) seconds *= cost_of_most_rows;
    return {tiles, tiles * seconds, rank_seconds};
}

/// Whether weights may leave L2 first, so that rows and outputs have more room there: each is read once, as the rows of
/// most experts are one tile or, where that is too few, the tiles of one cluster.
bool may_leave_first(const ProductSize& size, const Blocking& blocking) {
    // A copy also brings to L2 what the next step reads, which would be gone by then.
    if (size.reduction_contiguous) return false;
    // Not measured, and the lowest tiles are predicted to be the best there.
    if (size.rows_per_expert < least_tile_rows) return false;
    // 4 % more time at 512.
    constexpr double least_reduction = 1024;
    if (size.reduction < least_reduction) return false;
    const double rows = size.rows_per_expert + std::sqrt(size.rows_per_expert);
    const bool one_tile = rows <= blocking.tile_rows;
    return blocking.cluster == 1 ? one_tile : !one_tile && rows <= blocking.tile_rows * blocking.cluster;
}

/// Rows of an expert scatter around the mean like tokens drawn by chance.
double predicted(const ProductSize& size, const Blocking& blocking, std::int64_t rank, const gpu::DeviceFacts& facts) {
    constexpr std::array deviations{-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5};
    const double busy = 1.0 - std::exp(-size.rows_per_expert);
    ExpertCost all;
    for (const double deviation : deviations) {
        const double rows = size.rows_per_expert / busy + deviation * std::sqrt(size.rows_per_expert);
        all.add(expert_cost(std::max(1.0, std::round(rows)), size, blocking, rank, facts));
    }
    const double experts = busy * static_cast<double>(size.E) / deviations.size();
    const double row_tiles = experts * all.tiles / facts.multiprocessors;
    double seconds = experts * all.seconds / facts.multiprocessors;
    // In the last round of tiles some multiprocessors have none, and the others more of L2 and memory for themselves.
    constexpr double cost_of_idleness = 0.7;
    const double tiles = row_tiles * std::ceil(static_cast<double>(size.out) / tile_columns);
    seconds *= 1 + cost_of_idleness * (last_to_mean(tiles) - 1);
    // With few tiles the first of a row of them, which make the rank rows, run beside those that wait for them.
    seconds += all.rank_seconds / deviations.size() * std::max(0.0, 1 - row_tiles);
    // 0.4 to 4 % less time in all on the H200, measured from reductions of 2048 on.
    constexpr double measured_reduction = 2048;
    constexpr double weights_once_bytes = 0.97;
    const bool gains = blocking.weights_once && size.reduction >= measured_reduction;
    return seconds_of_launch + predicted_seconds(seconds, gains ? weights_once_bytes * size.bytes : size.bytes, facts);
}

std::string refusal_of_all(const Product& product, const gpu::DeviceFacts& facts) {
    if (facts.arch.name() != "sm_90a") return "wgmma is an instruction of sm_90a, not of " + facts.arch.name();
    if (product.red <= step_depth) {
        return fmt::format("the reduction of {} is a single step of {}", product.red, step_depth);
    }
    return {};
}

tuning::Candidate candidate_of(const Blocking& blocking) {
    tuning::Candidate candidate;
    candidate.name = fmt::format("wgmma_{}_by{}_s{}_{}{}{}{}{}", blocking.tile_rows, blocking.row_step, blocking.stages,
                                 blocking.staging_rows, blocking.cluster > 1 ? "_pairs" : "",
                                 blocking.makes_rank_rows ? "_rank_rows" : "", blocking.bands ? "_bands" : "",
                                 blocking.weights_once ? "_once" : "");
    candidate.configuration = {wgmma_product_name,
                               {{"TILE_ROWS", blocking.tile_rows},
                                {"STAGES", blocking.stages},
                                {"STAGING_ROWS", blocking.staging_rows},
                                {"ROW_STEP", blocking.row_step},
                                {"CLUSTER", blocking.cluster},
                                {"MAKES_RANK_ROWS", blocking.makes_rank_rows},
                                {"BANDS", blocking.bands}}};
    // Only where it is 1: records that are older than the choice do not have it.
    if (blocking.weights_once) candidate.configuration.values.emplace_back("WEIGHTS_ONCE", 1);
    return candidate;
}

tuning::SearchSpace wgmma_product_candidates(const ProductWork& work, const gpu::DeviceFacts& facts) {
    const Problem& problem = work.problem;
    const ProductSize size = product_size(work);
    const std::string refusal = refusal_of_all(work.product, facts);
    const std::int64_t rank = rank_columns(work);
    tuning::SearchSpace space;
    const auto add_one = [&](const Blocking& blocking) {
        tuning::Candidate candidate = candidate_of(blocking);
        // What was made smaller may be what another was made to.
        if (std::any_of(space.begin(), space.end(),
                        [&](const tuning::Candidate& other) { return other.name == candidate.name; })) {
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
    const auto add = [&](Blocking blocking, bool often) {
        add_one(blocking);
        blocking.weights_once = often && may_leave_first(size, blocking);
        if (blocking.weights_once) add_one(blocking);
    };
    // Rank rows made on the way come first: a pass over the rows less.
    for (const bool makes : {true, false}) {
        if (makes && (rank == 0 || rank > 64)) continue;
        for (const Rows& option : row_options) {
            if (makes && option.tile_rows > most_rows_with_rank_rows) continue;
            for (const int cluster : {1, 2}) {
                if (cluster > 1 && !option.often) continue;
                Blocking blocking{.tile_rows = option.tile_rows,
                                  .row_step = option.row_step,
                                  .stages = option.stages,
                                  .staging_rows = option.staging_rows,
                                  .cluster = cluster};
                if (makes) blocking = with_rank_rows(blocking, problem.E, rank, facts.shared_bytes_per_block);
                add(blocking, option.often);
                // Without clusters, blocks that share weights would run apart.
                blocking.bands = makes && cluster > 1 && work.product.out > tile_columns;
                if (blocking.bands) add(blocking, option.often);
            }
        }
    }
    return space;
}

Blocking blocking_of(const tuning::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {.tile_rows = at("TILE_ROWS"),
            .row_step = at("ROW_STEP"),
            .stages = at("STAGES"),
            .staging_rows = at("STAGING_ROWS"),
            .cluster = at("CLUSTER"),
            .makes_rank_rows = at("MAKES_RANK_ROWS") != 0,
            .bands = at("BANDS") != 0,
            .weights_once = configuration.at("WEIGHTS_ONCE", 0) != 0};
}

bool makes_ranks(const tuning::Configuration& configuration) { return configuration.at("MAKES_RANK_ROWS") != 0; }

/// What the blocks of a product that makes its rank rows tell each other by, for M rows.
std::int64_t progress_bytes(const Problem& problem, std::int64_t M) {
    // A counter and a flag for each row tile: every expert, and the entries left out, may have a cluster's that are not
    // full.
    return (1 + M / least_tile_rows + 2 * (problem.E + 1)) * static_cast<std::int64_t>(sizeof(unsigned));
}

/// What the tensor maps and the order of the tiles follow from.
struct Shape {
    Problem problem;
    Product product;
    Blocking blocking;
    std::int64_t experts = 0;  ///< of a launch
    std::int64_t rank = 0;     ///< columns of the rank rows, padding included; 0: no adapter

    /// Of the matrix that makes the rank rows: dX makes them with B [N, R], forward with A [R, K].
    [[nodiscard]] bool rank_red_contiguous() const { return !product.lora_out_contiguous; }
    [[nodiscard]] int column_tiles() const { return static_cast<int>((product.out + tile_columns - 1) / tile_columns); }
};

Shape shape_of(const ProductWork& work, const tuning::Configuration& configuration) {
    return {.problem = work.problem,
            .product = work.product,
            .blocking = blocking_of(configuration),
            .experts = launched_experts(work),
            .rank = rank_columns(work)};
}

/// Experts of a band, see grouped_product_wgmma/tile.cuh: the other tiles of one keep half of the GPU busy, so that the
/// first ones of the next are done before they are waited for.
int experts_ahead(const Shape& shape, std::int64_t M, int multiprocessors) {
    const std::int64_t E = shape.problem.E;
    const std::int64_t cluster = shape.blocking.cluster;
    if (!shape.blocking.bands) return static_cast<int>(shape.experts) + 1;
    const std::int64_t unit_rows = shape.blocking.tile_rows * cluster;
    const std::int64_t units = std::max<std::int64_t>(1, (M / E + unit_rows - 1) / unit_rows);  // of an expert
    const std::int64_t wanted = multiprocessors / cluster / 2;
    const std::int64_t given = (shape.column_tiles() - 1) * units;
    return static_cast<int>(std::clamp<std::int64_t>((wanted + given - 1) / given, 1, shape.experts + 1));
}

class WgmmaLaunch final : public ProductLaunch {
 public:
    explicit WgmmaLaunch(Shape shape) : shape_(std::move(shape)) {}

    void launch(const Launcher& launcher, const Step& step, const GroupedProductArgs& product, const Adapter& adapter,
                const PackedParts&, gpu::Begin begin) const override {
        const auto& [problem, work, blocking, experts, rank] = shape_;
        GroupedProductWgmmaArgs args{};
        args.product = product;
        args.rank_rows = adapter.rank_rows;
        args.rank_scale = adapter.scaling;
        args.weight_map = map(weight_view(product.weight, work.red, product.weight_expert_stride,
                                          product.weight_row_stride, work.weight_out_contiguous, step_depth));
        if (rank > 0) {
            args.lora_weight_map =
                map(weight_view(product.lora_weight, rank, product.lora_expert_stride, product.lora_row_stride,
                                work.lora_out_contiguous, rank_depth(rank)));
            args.lora_rows_map =
                map(matrices(product.lora_rows, 1, product.M, rank, 0, rank, blocking.tile_rows, rank_depth(rank)));
        }
        if (blocking.makes_rank_rows) {
            args.rank_map = map(rank_view(adapter.ranked));
            args.experts_ahead = experts_ahead(shape_, product.M, launcher.facts().multiprocessors);
            // No tile is taken and no rank row is written yet.
            args.progress = static_cast<unsigned*>(adapter.scratch);
            SMLORA_CUDA(cuMemsetD32Async, reinterpret_cast<CUdeviceptr>(adapter.scratch), 0,
                        static_cast<std::size_t>(progress_bytes(problem, product.M)) / 4, launcher.stream());
        }
        // An upper bound of the row tiles: each expert, and the entries left out, may have a cluster's that are not
        // full.
        const std::int64_t row_tiles = product.M / blocking.tile_rows + (experts + 1) * blocking.cluster;
        launcher.launch(step, row_tiles * step.column_tiles, args, begin);
    }

 private:
    [[nodiscard]] TensorMap map(const gpu::BoxedView& view) const {
        return gpu::tensor_map(view, shape_.problem.dtype);
    }

    /// A box is what one copy brings: of a reduction-contiguous matrix a block's share of the columns, of another 64.
    [[nodiscard]] gpu::BoxedView weight_view(const void* data, std::int64_t red, std::int64_t expert_stride,
                                             std::int64_t row_stride, bool out_contiguous, int depth) const {
        const std::int64_t E = shape_.experts;
        const std::int64_t out = shape_.product.out;
        const int share = tile_columns / shape_.blocking.cluster;
        return out_contiguous ? matrices(data, E, red, out, expert_stride, row_stride, depth, 64)
                              : matrices(data, E, out, red, expert_stride, row_stride, share, depth);
    }

    [[nodiscard]] gpu::BoxedView rank_view(const AdapterMatrix& matrix) const {
        const std::int64_t E = shape_.experts;
        const std::int64_t red = shape_.product.red;
        const std::int64_t rank = shape_.rank;
        const int depth = rank_depth(rank);
        return shape_.rank_red_contiguous()
                   ? matrices(matrix.data, E, rank, red, matrix.expert_stride, matrix.row_stride, depth, step_depth)
                   : matrices(matrix.data, E, red, rank, matrix.expert_stride, matrix.row_stride, step_depth, depth);
    }

    Shape shape_;
};

Step wgmma_product_step(const ProductWork& work, const tuning::Configuration& configuration) {
    const Shape shape = shape_of(work, configuration);
    const Blocking& blocking = shape.blocking;
    const std::int64_t rank = shape.rank;
    Step step;
    auto& spec = step.spec;
    spec.family = wgmma_product_name;
    spec.threads = grouped_product_wgmma::block_threads;
    spec.cluster = static_cast<unsigned>(blocking.cluster);
    spec.dynamic_shared = static_cast<unsigned>(blocking.shared_bytes(shape.experts, rank));
    step.tile_rows = blocking.tile_rows;
    step.column_tiles = shape.column_tiles();
    spec.constants = {
        {"E", shape.experts},
        {"RED", work.product.red},
        {"OUT", work.product.out},
        {"RANK", rank},
        {"TOP_K", work.problem.top_k},
        {"ROWS", static_cast<int>(work.product.rows)},
        {"OUT_ROWS", static_cast<int>(work.product.out_rows)},
        {"WEIGHT_MAJOR", work.product.weight_out_contiguous},
        {"LORA_MAJOR", work.product.lora_out_contiguous},
        {"RANK_MAJOR", !shape.rank_red_contiguous()},
        {"HAS_BIAS", work.product.bias},
        {"HAS_GATES", work.product.gates},
        {"SLICE", work.product.slice > 0},
        {"MAKES_RANK_ROWS", blocking.makes_rank_rows},
        {"WEIGHTS_ONCE", blocking.weights_once},
        {"COLUMN_TILES", step.column_tiles},
        {"CLUSTER", blocking.cluster},
        {"TILE_ROWS", blocking.tile_rows},
        {"ROW_STEP", blocking.row_step},
        {"STAGES", blocking.stages},
        {"STAGING_ROWS", blocking.staging_rows},
        {"Element", type_name(work.problem.dtype)},
        {"Weight", plain_weight},
        {"Gate", gate_type_name(work.problem, work.product.gates)},
        {"Index", type_name(work.problem.index_dtype)},
    };
    step.product_launch = std::make_shared<WgmmaLaunch>(shape);
    return step;
}

}  // namespace

const ProductFamily product_wgmma{
    .name = wgmma_product_name,
    .instructions = "wgmma",
    .makes_rank_products = false,
    .candidates = wgmma_product_candidates,
    .step = wgmma_product_step,
    .makes_rank_rows = makes_ranks,
    .scratch_bytes = progress_bytes,
};

}  // namespace smlora::families
