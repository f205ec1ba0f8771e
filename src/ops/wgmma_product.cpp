#include "ops/wgmma_product.hpp"

#include "args/grouped_product_wgmma.h"
#include "gpu/tensor_map.hpp"
#include "ops/roofline.hpp"
#include "util/environment.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace smlora::ops {
namespace {

// Mirrors grouped_product_wgmma/layout.cuh.
constexpr int step_depth = 64;
constexpr int tile_columns = 256;

struct Blocking {
    int tile_rows, row_step, stages, cluster;
};

/// Two row tiles that share their weights pay off where an expert has several and its weights do not stay in L2 from
/// one tile to the next (docs/performance.md).
bool pair_row_tiles(const ProductKernel& product, double rows_per_expert) {
    constexpr double weights_beyond_l2 = 64.0 * 1024 * 1024;
    const double weight_bytes = 2.0 * static_cast<double>(product.red) * static_cast<double>(product.out);
    return rows_per_expert > 160 && (rows_per_expert < 600 || weight_bytes > weights_beyond_l2);
}

int rank_depth(std::int64_t rank) { return rank <= 16 ? 16 : rank <= 32 ? 32 : 64; }

int shared_bytes(const Blocking& blocking, std::int64_t E, std::int64_t rank, bool makes_rank_rows) {
    const int stage = (tile_columns + blocking.tile_rows + (makes_rank_rows ? rank_depth(rank) : 0)) * step_depth * 2;
    const int staging = 2 * blocking.tile_rows * 256;
    const int barriers = (2 * blocking.stages + 4) * 8;
    return blocking.stages * stage + staging + barriers + blocking.tile_rows * 4 + (static_cast<int>(E) + 2) * 4 +
           16 * 4;
}

/// Rows are computed in steps of ROW_STEP, columns in whole tiles.
double predicted(const ProductSize& size, const Blocking& blocking, const gpu::DeviceFacts& facts) {
    constexpr double share_of_peak = 0.85;
    const double busy = 1.0 - std::exp(-size.rows_per_expert);
    const double rows = static_cast<double>(size.E) * (size.rows_per_expert + 0.5 * blocking.row_step * busy);
    const double columns = std::ceil(static_cast<double>(size.out) / tile_columns) * tile_columns;
    return predicted_seconds(2 * rows * columns * size.depth / (share_of_peak * facts.tensor_flop_per_second),
                             size.bytes, facts);
}

gpu::BoxedView matrices(const void* data, std::int64_t E, std::int64_t rows, std::int64_t columns,
                        std::int64_t expert_stride, std::int64_t row_stride, int box_rows, int box_columns) {
    // A stride of a dimension of one is never used, but must be one that the driver takes.
    if (E == 1) expert_stride = rows * row_stride;
    return {data, {E, rows, columns}, expert_stride, row_stride, box_rows, box_columns};
}

}  // namespace

tune::SearchSpace wgmma_candidates(const Problem& problem, const ProductKernel& product, const ProductSize& size,
                                   const gpu::DeviceFacts& facts) {
    std::string refusal;
    if (facts.arch.name() != "sm_90a") {
        refusal = "wgmma is an instruction of sm_90a, not of " + facts.arch.name();
    } else if (product.red <= step_depth) {
        refusal = fmt::format("the reduction of {} is a single step of {}", product.red, step_depth);
    } else if (util::environment("SMLORA_INSTRUCTIONS") != "wgmma") {
        refusal = "SMLORA_INSTRUCTIONS is not wgmma";
    }
    const std::int64_t rank = product.rank > 0 ? padded_rank(problem) : 0;
    const bool pairs = pair_row_tiles(product, size.rows_per_expert);
    tune::SearchSpace space;
    // Rank rows made on the way come first: a pass over the rows less.
    for (const bool makes : {true, false}) {
        if (makes && (product.rank == 0 || product.rank > 64)) continue;
        for (const int cluster : {1, 2}) {
            const Blocking blocking{!makes ? 144 : rank > 32 ? 112 : 128, 16, 3, cluster};
            tune::Candidate candidate;
            candidate.name = fmt::format("wgmma_{}_s{}{}{}", blocking.tile_rows, blocking.stages,
                                         cluster > 1 ? "_pairs" : "", makes ? "_rank_rows" : "");
            candidate.configuration = {product_wgmma_family,
                                       {{"TILE_ROWS", blocking.tile_rows},
                                        {"REST_TILE_ROWS", 144},
                                        {"ROW_STEP", blocking.row_step},
                                        {"STAGES", blocking.stages},
                                        {"CLUSTER", cluster},
                                        {"MAKES_RANK_ROWS", makes}}};
            constexpr double unsuited = 1.05;  // about what the wrong one of the two cost where it was measured
            candidate.predicted_seconds = predicted(size, blocking, facts) * ((cluster == 2) == pairs ? 1 : unsuited);
            candidate.shared_bytes = shared_bytes(blocking, problem.E, rank, makes);
            candidate.refusal = refusal;
            if (refusal.empty() && candidate.shared_bytes > facts.shared_bytes_per_block) {
                candidate.refusal = fmt::format("a block needs {} bytes of shared memory and {} has {}",
                                                candidate.shared_bytes, facts.name, facts.shared_bytes_per_block);
            }
            space.push_back(std::move(candidate));
        }
    }
    return space;
}

bool makes_rank_rows(const tune::Configuration& configuration) {
    return configuration.family == product_wgmma_family && configuration.at("MAKES_RANK_ROWS") != 0;
}

bool wgmma_has_rest(const ProductKernel& product) { return product.out > tile_columns; }

Step wgmma_step(const Problem& problem, const ProductKernel& product, WgmmaPart part,
                const tune::Configuration& configuration) {
    const bool makes = part == WgmmaPart::first;
    const std::int64_t rank = product.rank > 0 ? padded_rank(problem) : 0;
    const char* const tile_rows = part == WgmmaPart::rest ? "REST_TILE_ROWS" : "TILE_ROWS";
    const Blocking blocking{
        static_cast<int>(configuration.at(tile_rows)), static_cast<int>(configuration.at("ROW_STEP")),
        static_cast<int>(configuration.at("STAGES")), static_cast<int>(configuration.at("CLUSTER"))};
    const int columns = static_cast<int>((product.out + tile_columns - 1) / tile_columns);

    Step step;
    auto& spec = step.spec;
    spec.family = product_wgmma_family;
    spec.threads = 512;
    spec.cluster = static_cast<unsigned>(blocking.cluster);
    spec.dynamic_shared = static_cast<unsigned>(shared_bytes(blocking, problem.E, rank, makes));
    step.tile_rows = blocking.tile_rows;
    step.column_tiles = part == WgmmaPart::first ? 1 : part == WgmmaPart::rest ? columns - 1 : columns;
    // dX makes its rank rows with B [N, R], forward with A [R, K].
    const bool rank_red_contiguous = !product.lora_out_contiguous;
    spec.constants = {
        {"E", problem.E},
        {"RED", product.red},
        {"OUT", product.out},
        {"RANK", rank},
        {"TOP_K", problem.top_k},
        {"ROWS", static_cast<int>(product.rows)},
        {"OUT_ROWS", static_cast<int>(product.out_rows)},
        {"WEIGHT_MAJOR", product.weight_out_contiguous},
        {"LORA_MAJOR", product.lora_out_contiguous},
        {"RANK_MAJOR", !rank_red_contiguous},
        {"HAS_BIAS", product.bias},
        {"HAS_GATES", product.gates},
        {"MAKES_RANK_ROWS", makes},
        {"FIRST_COLUMN_TILE", part == WgmmaPart::rest ? 1 : 0},
        {"COLUMN_TILES", step.column_tiles},
        {"CLUSTER", blocking.cluster},
        {"TILE_ROWS", blocking.tile_rows},
        {"ROW_STEP", blocking.row_step},
        {"STAGES", blocking.stages},
        {"Element", type_name(problem.dtype)},
        {"Gate", type_name(problem.gate_dtype)},
        {"Index", type_name(problem.index_dtype)},
    };
    step.wgmma = WgmmaShape{problem.E,
                            product.red,
                            product.out,
                            rank,
                            product.weight_out_contiguous,
                            product.lora_out_contiguous,
                            rank_red_contiguous,
                            makes,
                            blocking.tile_rows,
                            rank_depth(rank),
                            problem.dtype};
    return step;
}

void launch_wgmma(CudaCall& call, const Plan& plan, const Step& step, const GroupedProductArgs& product,
                  const RankRows& rank_rows, gpu::Begin begin) {
    const WgmmaShape& shape = *step.wgmma;
    GroupedProductWgmmaArgs args{};
    args.product = product;
    args.rank_rows = rank_rows.rows;
    args.rank_scale = rank_rows.scale;

    // A box is what one copy brings: of a reduction-contiguous matrix a block's share of the columns, of another 64.
    const int share = tile_columns / static_cast<int>(step.spec.cluster);
    const auto weight_view = [&](const void* data, std::int64_t red, std::int64_t expert_stride,
                                 std::int64_t row_stride, bool out_contiguous, int depth) {
        return out_contiguous ? matrices(data, shape.E, red, shape.out, expert_stride, row_stride, depth, 64)
                              : matrices(data, shape.E, shape.out, red, expert_stride, row_stride, share, depth);
    };
    args.weight_map = gpu::tensor_map(weight_view(product.weight, shape.red, product.weight_expert_stride,
                                                  product.weight_row_stride, shape.weight_out_contiguous, step_depth),
                                      shape.dtype);
    if (shape.rank > 0) {
        args.lora_weight_map =
            gpu::tensor_map(weight_view(product.lora_weight, shape.rank, product.lora_expert_stride,
                                        product.lora_row_stride, shape.lora_out_contiguous, shape.rank_depth),
                            shape.dtype);
    }
    if (shape.makes_rank_rows) {
        args.rank_map =
            gpu::tensor_map(shape.rank_red_contiguous
                                ? matrices(rank_rows.matrix, shape.E, shape.rank, shape.red, rank_rows.expert_stride,
                                           rank_rows.row_stride, shape.rank_depth, step_depth)
                                : matrices(rank_rows.matrix, shape.E, shape.red, shape.rank, rank_rows.expert_stride,
                                           rank_rows.row_stride, step_depth, shape.rank_depth),
                            shape.dtype);
    } else if (shape.rank > 0) {
        args.lora_rows_map = gpu::tensor_map(
            matrices(product.lora_rows, 1, product.M, shape.rank, 0, shape.rank, shape.tile_rows, shape.rank_depth),
            shape.dtype);
    }
    // An upper bound of the row tiles: each expert, and the entries left out, may have a cluster's that are not full.
    const std::int64_t row_tiles = product.M / step.tile_rows + (shape.E + 1) * step.spec.cluster;
    call.launch(plan, step, row_tiles * step.column_tiles, args, begin);
}

}  // namespace smlora::ops
