#include "families/product_packed.hpp"

#include "args/packed_weight.h"
#include "families/packed.hpp"
#include "families/product_launch.hpp"
#include "families/roofline.hpp"
#include "families/type_names.hpp"
#include "families/wgmma_boxes.hpp"
#include "scale_order.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

namespace smlora::families {
namespace {

using grouped_product_wgmma::step_depth;
using grouped_product_wgmma::tile_columns;

constexpr const char* packed_product_name = "grouped_product_packed";

/// Blocking of one kernel. Tiles have heights from `least_height` to `tile_rows`: few, as the template says.
struct PackedBlocking {
    int tile_rows, row_step, least_height, stages, staging_rows;

    [[nodiscard]] grouped_product_wgmma::Blocking of_kernel() const {
        return {.tile_rows = tile_rows,
                .stages = stages,
                .staging_rows = staging_rows,
                .cluster = 1,
                .makes_rank_rows = false};
    }
    [[nodiscard]] auto shared_memory(const ProductWork& work, std::int64_t E) const {
        const WeightFormat& format = work.problem.weights;
        return grouped_product_wgmma::shared_memory(
            of_kernel(), static_cast<int>(E),
            weight::packed_stage_bytes(code_bits(format), scale_order(format), tile_columns, step_depth),
            static_cast<int>(rank_columns(work)));
    }
    [[nodiscard]] int shared_bytes(const ProductWork& work) const {
        return static_cast<int>(shared_memory(work, work.problem.E).bytes);
    }
    /// The adapter's operands, which wait in the staging of the output.
    [[nodiscard]] bool adapter_fits(const ProductWork& work) const {
        return rank_columns(work) == 0 || shared_memory(work, 0).lora_beside;
    }
    [[nodiscard]] int height_of(double rows) const {
        return std::max(least_height, grouped_product_wgmma::whole_height(static_cast<int>(std::ceil(rows)), row_step));
    }
};

// Of those that are predicted alike, the first is taken.
constexpr std::array blockings{
    PackedBlocking{64, 16, 16, 10, 64}, PackedBlocking{96, 16, 16, 8, 64},   PackedBlocking{128, 16, 48, 7, 64},
    PackedBlocking{144, 16, 96, 6, 64}, PackedBlocking{160, 16, 144, 6, 48}, PackedBlocking{160, 8, 152, 6, 48},
};

/// With as much staging as the adapter needs, and fewer stages where that leaves no room for them.
PackedBlocking with_adapter(PackedBlocking blocking, const ProductWork& work, int shared_bytes) {
    while (!blocking.adapter_fits(work) && blocking.staging_rows < blocking.tile_rows) blocking.staging_rows += 16;
    constexpr int least_stages = 4;
    while (blocking.stages > least_stages && blocking.shared_bytes(work) > shared_bytes) --blocking.stages;
    return blocking;
}

/// What a tile takes, in seconds of a multiprocessor: a step is a straight line in the height. By 40 timings of the
/// H200 on 2026-11-30; 38 are within 5 % once what the other kernels of the call take is added to all blockings alike.
double tile_seconds(int height, const ProductSize& size, const gpu::DeviceFacts& facts) {
    constexpr double seconds_of_step = 0.265e-6;
    constexpr double share_of_peak = 1.54;  // of what a row adds to that
    constexpr double seconds_between_tiles = 3.9e-6;
    const double flop = 2.0 * height * tile_columns * step_depth;
    const double products = flop / (share_of_peak * facts.tensor_flop_per_second) * facts.multiprocessors;
    return std::ceil(size.depth / step_depth) * (seconds_of_step + products) + seconds_between_tiles;
}

/// What a tile takes of what one of mxfp4 does. By timings of the H200 on 2026-12-01, at 32 to 1024 rows an expert.
double decoding(const ProductWork& work) {
    const bool strided = work.product.weight_out_contiguous;
    switch (work.problem.weights.encoding) {
        case Encoding::nf4:
        case Encoding::fp4:
            return 1.23;
        case Encoding::nvfp4:
            return strided ? 1.12 : 1.22;
        case Encoding::fp8:
            return strided ? 1.05 : 1.08;
        case Encoding::mxfp8:
            return 1.05;
        default:
            return 1;
    }
}

double predicted(const ProductWork& work, const PackedBlocking& blocking, const gpu::DeviceFacts& facts) {
    const ProductSize size = product_size(work);
    constexpr std::array deviations{-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5};
    const double busy = 1.0 - std::exp(-size.rows_per_expert);
    double row_tiles = 0;
    double seconds = 0;
    for (const double deviation : deviations) {
        const double mean = size.rows_per_expert / busy;
        const double rows = std::max(1.0, std::round(mean + deviation * std::sqrt(mean)));
        const double tiles = std::ceil(rows / blocking.tile_rows);
        row_tiles += tiles;
        seconds += tiles * tile_seconds(blocking.height_of(rows / tiles), size, facts);
    }
    const double experts = busy * static_cast<double>(size.E) / deviations.size();
    const double column_tiles = std::ceil(static_cast<double>(size.out) / tile_columns);
    const double tiles = experts * row_tiles * column_tiles / facts.multiprocessors;
    seconds *= decoding(work) * experts * column_tiles / facts.multiprocessors * last_to_mean(tiles);
    return seconds_of_launch + predicted_seconds(seconds, size.bytes, facts);
}

std::string refusal_of_all(const ProductWork& work, const gpu::DeviceFacts& facts) {
    if (facts.arch.name() != "sm_90a") return "wgmma is an instruction of sm_90a, not of " + facts.arch.name();
    if (!can_multiply_codes(work.problem)) {
        return fmt::format("weights of {} are not decoded on the way to products of {}",
                           to_string(work.problem.weights), name(work.problem.dtype));
    }
    if (work.product.red <= step_depth) {
        return fmt::format("the reduction of {} is a single step of {}", work.product.red, step_depth);
    }
    return {};
}

tuning::SearchSpace packed_candidates(const ProductWork& work, const gpu::DeviceFacts& facts) {
    const std::string refusal = refusal_of_all(work, facts);
    const std::int64_t rank = rank_columns(work);
    tuning::SearchSpace space;
    for (const PackedBlocking& usual : blockings) {
        const PackedBlocking blocking = with_adapter(usual, work, facts.shared_bytes_per_block);
        tuning::Candidate candidate;
        candidate.name = fmt::format("packed_{}_to_{}_s{}_{}", blocking.least_height, blocking.tile_rows,
                                     blocking.stages, blocking.staging_rows);
        candidate.configuration = {packed_product_name,
                                   {{"TILE_ROWS", blocking.tile_rows},
                                    {"ROW_STEP", blocking.row_step},
                                    {"LEAST_HEIGHT", blocking.least_height},
                                    {"STAGES", blocking.stages},
                                    {"STAGING_ROWS", blocking.staging_rows}}};
        candidate.predicted_seconds = predicted(work, blocking, facts);
        candidate.shared_bytes = blocking.shared_bytes(work);
        candidate.refusal = refusal;
        if (refusal.empty() && !blocking.adapter_fits(work)) {
            candidate.refusal = fmt::format("the staging of {} rows has no room for an adapter of rank {}",
                                            blocking.staging_rows, rank);
        }
        if (candidate.refusal.empty() && candidate.shared_bytes > facts.shared_bytes_per_block) {
            candidate.refusal = fmt::format("a block needs {} bytes of shared memory and {} has {}",
                                            candidate.shared_bytes, facts.name, facts.shared_bytes_per_block);
        }
        space.push_back(std::move(candidate));
    }
    return space;
}

PackedBlocking packed_blocking_of(const tuning::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    return {at("TILE_ROWS"), at("ROW_STEP"), at("LEAST_HEIGHT"), at("STAGES"), at("STAGING_ROWS")};
}

class PackedLaunch final : public ProductLaunch {
 public:
    PackedLaunch(ProductWork work, const PackedBlocking& blocking)
        : work_(std::move(work)), blocking_(blocking), rank_(rank_columns(work_)) {}

    void launch(const Launcher& launcher, const Step& step, const GroupedProductArgs& product, const Adapter&,
                const PackedParts& parts, gpu::Begin begin) const override {
        const auto& [red, out, out_contiguous] =
            std::tuple{work_.product.red, work_.product.out, work_.product.weight_out_contiguous};
        const std::int64_t E = work_.problem.E;
        GroupedProductPackedArgs packed{};
        GroupedProductWgmmaArgs& args = packed.wgmma;
        args.product = product;
        // A box has 128 bytes of columns of a step, or the step's depth of 64 columns.
        args.weight_map = out_contiguous
                              ? map(codes(product.weight, red, out, step_depth, 64))
                              : map(codes(product.weight, out, red, weight::scale_block, step_depth / codes_in_unit()));
        packed.scales = arranged_scales(work_, parts.scales);
        packed.table = parts.table;
        if (rank_ > 0) {
            const int depth = grouped_product_wgmma::rank_depth(static_cast<int>(rank_));
            args.lora_weight_map = work_.product.lora_out_contiguous
                                       ? map(matrices(product.lora_weight, E, rank_, out, product.lora_expert_stride,
                                                      product.lora_row_stride, depth, 64))
                                       : map(matrices(product.lora_weight, E, out, rank_, product.lora_expert_stride,
                                                      product.lora_row_stride, tile_columns, depth));
            args.lora_rows_map =
                map(matrices(product.lora_rows, 1, product.M, rank_, 0, rank_, blocking_.tile_rows, depth));
        }
        launcher.launch(step, most_tiles(step, product.M, E), packed, begin);
    }

 private:
    [[nodiscard]] TensorMap map(const gpu::BoxedView& view) const { return gpu::tensor_map(view, work_.problem.dtype); }

    /// Units of tensor maps have two bytes.
    [[nodiscard]] int codes_in_unit() const { return 16 / code_bits(work_.problem.weights); }

    [[nodiscard]] gpu::BoxedView codes(const void* data, std::int64_t rows, std::int64_t columns, int box_rows,
                                       int box_units) const {
        const std::int64_t units = columns / codes_in_unit();
        return matrices(data, work_.problem.E, rows, units, rows * units, units, box_rows, box_units);
    }

    ProductWork work_;
    PackedBlocking blocking_;
    std::int64_t rank_;  ///< columns of the rank rows, padding included; 0: no adapter
};

Step packed_step(const ProductWork& work, const tuning::Configuration& configuration) {
    const PackedBlocking blocking = packed_blocking_of(configuration);
    const std::int64_t rank = rank_columns(work);
    Step step;
    auto& spec = step.spec;
    spec.family = packed_product_name;
    spec.threads = grouped_product_wgmma::block_threads;
    spec.dynamic_shared = static_cast<unsigned>(blocking.shared_bytes(work));
    step.tile_rows = blocking.tile_rows;
    step.column_tiles = static_cast<int>((work.product.out + tile_columns - 1) / tile_columns);
    spec.constants = {
        {"E", work.problem.E},
        {"RED", work.product.red},
        {"OUT", work.product.out},
        {"RANK", rank},
        {"TOP_K", work.problem.top_k},
        {"ROWS", static_cast<int>(work.product.rows)},
        {"OUT_ROWS", static_cast<int>(work.product.out_rows)},
        {"WEIGHT_MAJOR", work.product.weight_out_contiguous},
        {"LORA_MAJOR", work.product.lora_out_contiguous},
        {"RANK_MAJOR", 0},
        {"HAS_BIAS", work.product.bias},
        {"HAS_GATES", work.product.gates},
        {"SLICE", 0},
        {"MAKES_RANK_ROWS", 0},
        {"WEIGHTS_ONCE", 0},
        {"COLUMN_TILES", step.column_tiles},
        {"CLUSTER", 1},
        {"TILE_ROWS", blocking.tile_rows},
        {"ROW_STEP", blocking.row_step},
        {"LEAST_HEIGHT", blocking.least_height},
        {"STAGES", blocking.stages},
        {"STAGING_ROWS", blocking.staging_rows},
        {"Element", type_name(work.problem.dtype)},
        {"Weight", decoded_format(work.problem.weights)},
        {"Gate", gate_type_name(work.problem, work.product.gates)},
        {"Index", type_name(work.problem.index_dtype)},
    };
    step.product_launch = std::make_shared<PackedLaunch>(work, blocking);
    return step;
}

}  // namespace

const ProductFamily product_packed{
    .name = packed_product_name,
    .instructions = "wgmma",
    .makes_rank_products = false,
    .multiplies_codes = true,
    .permutes_rows = true,
    .candidates = packed_candidates,
    .step = packed_step,
};

}  // namespace smlora::families
