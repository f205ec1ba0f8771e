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
    int tile_rows, row_step, stages;
};

int rank_depth(std::int64_t rank) { return rank <= 16 ? 16 : rank <= 32 ? 32 : 64; }

int shared_bytes(const Blocking& blocking, std::int64_t E, std::int64_t rank, bool makes_rank_rows, bool beside) {
    const int depth = rank_depth(rank);
    const int stage = (tile_columns + blocking.tile_rows + (makes_rank_rows ? depth : 0)) * step_depth * 2;
    const int adapter = beside ? (tile_columns + (makes_rank_rows ? 0 : blocking.tile_rows)) * depth * 2 : 0;
    const int staging = 2 * blocking.tile_rows * 256;
    const int barriers = (2 * blocking.stages + 4) * 8;
    return blocking.stages * stage + adapter + staging + barriers + blocking.tile_rows * 4 +
           (static_cast<int>(E) + 2) * 4 + 16 * 4;
}

/// Whether the adapter's operands have shared memory of their own, beside the stages.
bool adapter_beside(const ProductKernel& product, std::int64_t rank, int stages) {
    return rank > 0 && rank <= 16 && (product.red + step_depth - 1) / step_depth > stages;
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
    tune::SearchSpace space;
    // Rank rows made on the way come first: a pass over the rows less.
    for (const bool makes : {true, false}) {
        if (makes && (product.rank == 0 || product.rank > 64)) continue;
        const std::int64_t rank = product.rank > 0 ? padded_rank(problem) : 0;
        const Blocking blocking{makes && rank > 32 ? 112 : 128, 16, 3};
        tune::Candidate candidate;
        candidate.name = fmt::format("wgmma_{}_s{}{}", blocking.tile_rows, blocking.stages, makes ? "_rank_rows" : "");
        candidate.configuration = {product_wgmma_family,
                                   {{"TILE_ROWS", blocking.tile_rows},
                                    {"REST_TILE_ROWS", 128},
                                    {"ROW_STEP", blocking.row_step},
                                    {"STAGES", blocking.stages},
                                    {"MAKES_RANK_ROWS", makes}}};
        candidate.predicted_seconds = predicted(size, blocking, facts);
        candidate.shared_bytes =
            shared_bytes(blocking, problem.E, rank, makes, adapter_beside(product, rank, blocking.stages));
        candidate.refusal = refusal;
        space.push_back(std::move(candidate));
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
    const Blocking blocking{static_cast<int>(configuration.at(tile_rows)),
                            static_cast<int>(configuration.at("ROW_STEP")),
                            static_cast<int>(configuration.at("STAGES"))};
    const bool beside = adapter_beside(product, rank, blocking.stages);
    const int columns = static_cast<int>((product.out + tile_columns - 1) / tile_columns);

    Step step;
    auto& spec = step.spec;
    spec.family = product_wgmma_family;
    spec.threads = 512;
    spec.dynamic_shared = static_cast<unsigned>(shared_bytes(blocking, problem.E, rank, makes, beside));
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
        {"LORA_BESIDE", beside},
        {"FIRST_COLUMN_TILE", part == WgmmaPart::rest ? 1 : 0},
        {"COLUMN_TILES", step.column_tiles},
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

    // A box is what one copy brings: of a reduction-contiguous matrix 256 columns, of another 64 at a time.
    const auto weight_view = [&](const void* data, std::int64_t red, std::int64_t expert_stride,
                                 std::int64_t row_stride, bool out_contiguous, int depth) {
        return out_contiguous ? matrices(data, shape.E, red, shape.out, expert_stride, row_stride, depth, 64)
                              : matrices(data, shape.E, shape.out, red, expert_stride, row_stride, tile_columns, depth);
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
    // An upper bound of the row tiles: each expert, and the entries left out, may have one that is not full.
    const std::int64_t row_tiles = product.M / step.tile_rows + shape.E + 1;
    call.launch(plan, step, row_tiles * step.column_tiles, args, begin);
}

}  // namespace smlora::ops
