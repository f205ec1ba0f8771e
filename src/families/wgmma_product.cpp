#include "families/wgmma_product.hpp"

#include "args/grouped_product_wgmma.h"
#include "gpu/driver.hpp"
#include "gpu/tensor_map.hpp"

#include <algorithm>

namespace smlora::families {
namespace {

using grouped_product_wgmma::step_depth;
using grouped_product_wgmma::tile_columns;

gpu::BoxedView matrices(const void* data, std::int64_t E, std::int64_t rows, std::int64_t columns,
                        std::int64_t expert_stride, std::int64_t row_stride, int box_rows, int box_columns) {
    // A stride of a dimension of one is never used, but must be one that the driver takes.
    if (E == 1) expert_stride = rows * row_stride;
    return {data, {E, rows, columns}, expert_stride, row_stride, box_rows, box_columns};
}

/// Experts of a band, see grouped_product_wgmma/tile.cuh: the other tiles of one keep half of the GPU busy, so that the
/// first ones of the next are done before they are waited for.
int experts_ahead(const plan::Step& step, std::int64_t M, int multiprocessors) {
    const plan::WgmmaShape& shape = *step.wgmma;
    if (!shape.bands) return static_cast<int>(shape.E) + 1;
    const std::int64_t unit_rows = static_cast<std::int64_t>(step.tile_rows) * step.spec.cluster;
    const std::int64_t units = std::max<std::int64_t>(1, (M / shape.E + unit_rows - 1) / unit_rows);  // of an expert
    const std::int64_t wanted = multiprocessors / static_cast<std::int64_t>(step.spec.cluster) / 2;
    const std::int64_t given = (step.column_tiles - 1) * units;
    return static_cast<int>(std::clamp<std::int64_t>((wanted + given - 1) / given, 1, shape.E + 1));
}

}  // namespace

plan::Step wgmma_step(const Problem& problem, const ProductKernel& product, const tune::Configuration& configuration) {
    const std::int64_t rank = product.rank > 0 ? padded_rank(problem) : 0;
    const WgmmaBlocking blocking = wgmma_blocking(configuration);
    const int columns = static_cast<int>((product.out + tile_columns - 1) / tile_columns);

    plan::Step step;
    auto& spec = step.spec;
    spec.family = product_wgmma_family;
    spec.threads = grouped_product_wgmma::block_threads;
    spec.cluster = static_cast<unsigned>(blocking.cluster);
    spec.dynamic_shared = static_cast<unsigned>(blocking.shared_bytes(problem.E, rank));
    step.tile_rows = blocking.tile_rows;
    step.column_tiles = columns;
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
        {"MAKES_RANK_ROWS", blocking.makes_rank_rows},
        {"COLUMN_TILES", step.column_tiles},
        {"CLUSTER", blocking.cluster},
        {"TILE_ROWS", blocking.tile_rows},
        {"ROW_STEP", blocking.row_step},
        {"STAGES", blocking.stages},
        {"STAGING_ROWS", blocking.staging_rows},
        {"Element", type_name(problem.dtype)},
        {"Weight", plain_weight},
        {"Gate", gate_type_name(problem, product.gates)},
        {"Index", type_name(problem.index_dtype)},
    };
    step.wgmma = plan::WgmmaShape{problem.E,
                                  product.red,
                                  product.out,
                                  rank,
                                  product.weight_out_contiguous,
                                  product.lora_out_contiguous,
                                  rank_red_contiguous,
                                  blocking.makes_rank_rows,
                                  blocking.bands,
                                  blocking.tile_rows,
                                  grouped_product_wgmma::rank_depth(static_cast<int>(rank)),
                                  problem.dtype};
    return step;
}

std::int64_t wgmma_progress_bytes(std::int64_t E, std::int64_t M) {
    // A counter and a flag for each row tile: every expert, and the entries left out, may have a cluster's that are not
    // full.
    return (1 + M / least_wgmma_tile_rows + 2 * (E + 1)) * static_cast<std::int64_t>(sizeof(unsigned));
}

void launch_wgmma(engine::CudaCall& call, const plan::Plan& plan, const plan::Step& step,
                  const GroupedProductArgs& product, const RankRows& rank_rows, gpu::Begin begin) {
    const plan::WgmmaShape& shape = *step.wgmma;
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
        args.experts_ahead = experts_ahead(step, product.M, plan.multiprocessors);
        // No tile is taken and no rank row is written yet.
        args.progress = static_cast<unsigned*>(rank_rows.progress);
        SMLORA_CUDA(cuMemsetD32Async, reinterpret_cast<CUdeviceptr>(rank_rows.progress), 0,
                    static_cast<std::size_t>(wgmma_progress_bytes(shape.E, product.M)) / 4, call.stream());
    }
    if (shape.rank > 0) {
        args.lora_rows_map = gpu::tensor_map(
            matrices(product.lora_rows, 1, product.M, shape.rank, 0, shape.rank, shape.tile_rows, shape.rank_depth),
            shape.dtype);
    }
    // An upper bound of the row tiles: each expert, and the entries left out, may have a cluster's that are not full.
    const std::int64_t row_tiles = product.M / step.tile_rows + (shape.E + 1) * step.spec.cluster;
    call.launch(plan, step, row_tiles * step.column_tiles, args, begin);
}

}  // namespace smlora::families
