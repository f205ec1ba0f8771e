#include "families/product_step.hpp"

#include "args/grouped_product_simt.h"
#include "args/lora_gradient_reduce.h"
#include "args/lora_gradient_simt.h"
#include "families/tiles.hpp"

#include <smlora/error.hpp>

namespace smlora::families {
namespace {

std::vector<jit::Constant> product_constants(const Problem& problem, const ProductKernel& product) {
    return {
        {"E", problem.E},
        {"RED", product.red},
        {"OUT", product.out},
        {"TOP_K", problem.top_k},
        {"ROWS", static_cast<int>(product.rows)},
        {"OUT_ROWS", static_cast<int>(product.out_rows)},
        {"WEIGHT_MAJOR", product.weight_out_contiguous},
        {"LORA_MAJOR", product.lora_out_contiguous},
        {"HAS_BIAS", product.bias},
        {"HAS_GATES", product.gates},
        {"Element", type_name(problem.dtype)},
        {"Weight", plain_weight},
        {"Gate", gate_type_name(problem, product.gates)},
        {"Index", type_name(problem.index_dtype)},
    };
}

std::vector<jit::Constant> gradient_constants(const Problem& problem, std::int64_t width, RowOrder rows) {
    return {
        {"E", problem.E},
        {"WIDE", width},
        {"RANK", problem.R},
        {"RANK_STRIDE", padded_rank(problem)},
        {"ROWS", static_cast<int>(rows)},
        {"TOP_K", problem.top_k},
        {"HAS_GATES", problem.gates},
        {"Element", type_name(problem.dtype)},
        {"Output", type_name(problem.adapter_dtype)},
        {"Gate", gate_type_name(problem, problem.gates)},
        {"Index", type_name(problem.index_dtype)},
    };
}

}  // namespace

const char* type_name(DType dtype) {
    switch (dtype) {
        case DType::bf16:
            return "smlora::bf16";
        case DType::fp16:
            return "smlora::fp16";
        case DType::fp32:
            return "float";
        case DType::int32:
            return "int";
        case DType::int64:
            return "long long";
        case DType::fp64:
            break;
    }
    throw Error(ErrorCode::unsupported, "dtype: expected bf16, fp16 or fp32 on the CUDA backend, got fp64");
}

const char* gate_type_name(const Problem& problem, bool gates) {
    return type_name(gates ? problem.gate_dtype : problem.dtype);
}

plan::Step product_step(const Problem& problem, const ProductKernel& product,
                        const std::optional<tune::Configuration>& configuration) {
    plan::Step step;
    auto& spec = step.spec;
    spec.constants = product_constants(problem, product);
    auto& constants = spec.constants;
    if (configuration) {
        const ProductTile tile = product_tile(*configuration);
        spec.family = product_mma_family;
        spec.threads = tile.threads();
        spec.min_blocks = static_cast<unsigned>(tile.min_blocks);
        spec.dynamic_shared = tile.shared_bytes(problem.E);
        constants.emplace_back("RANK", product.rank > 0 ? padded_rank(problem) : 0);
        constants.emplace_back("WEIGHT_ROW_STRIDE", product.weight_row_stride);
        constants.emplace_back("TILE_M", tile.m);
        constants.emplace_back("TILE_N", tile.n);
        constants.emplace_back("TILE_K", tile.k);
        constants.emplace_back("WARPS_M", tile.warps_m);
        constants.emplace_back("WARPS_N", tile.warps_n);
        constants.emplace_back("STAGES", tile.stages);
        step.tile_rows = tile.m;
        step.column_tiles = static_cast<int>((product.out + tile.n - 1) / tile.n);
    } else {
        using grouped_product_simt::tile;
        spec.family = "grouped_product_simt";
        spec.threads = grouped_product_simt::block_threads;
        spec.dynamic_shared =
            static_cast<unsigned>(grouped_product_simt::shared_memory(static_cast<int>(problem.E)).bytes);
        constants.emplace_back("OUT_WEIGHT", product.out_weight);
        constants.emplace_back("RANK", product.rank);
        constants.emplace_back("RANK_STRIDE", padded_rank(problem));
        step.tile_rows = tile;
        step.column_tiles = static_cast<int>((product.out + tile - 1) / tile);
    }
    return step;
}

plan::Step reference_product_step(const Problem& problem, const ProductKernel& product) {
    plan::Step step;
    step.spec.family = "grouped_product_reference";
    step.spec.threads = 256;
    step.spec.constants = product_constants(problem, product);
    step.spec.constants.emplace_back("RANK", product.rank > 0 ? padded_rank(problem) : 0);
    return step;
}

plan::Step gradients_step(const Problem& problem, const plan::Variant& variant,
                          const tune::Configuration& configuration) {
    const std::int64_t wide_a = variant.wants_da ? problem.K : 0;
    const std::int64_t wide_b = variant.wants_db ? problem.N : 0;
    plan::Step step;
    auto& spec = step.spec;
    spec.family = configuration.family;
    spec.constants = {
        {"E", problem.E},
        {"WIDE_A", wide_a},
        {"WIDE_B", wide_b},
        {"ROWS_A", static_cast<int>(problem.x_rows)},
        {"ROWS_B", static_cast<int>(problem.y_rows)},
        {"RANK", problem.R},
        {"RANK_STRIDE", padded_rank(problem)},
        {"TOP_K", problem.top_k},
        {"HAS_GATES", problem.gates},
        {"Element", type_name(problem.dtype)},
        {"Output", type_name(problem.adapter_dtype)},
        {"Gate", gate_type_name(problem, problem.gates)},
        {"Index", type_name(problem.index_dtype)},
    };
    const auto add = [&](const char* name, int value) { spec.constants.emplace_back(name, value); };
    std::int64_t columns = 0, ranks = 0;
    if (configuration.family == gradient_bulk_family) {
        const GradientBulkTile tile = gradient_bulk_tile(configuration);
        spec.threads = tile.threads();
        spec.dynamic_shared = tile.shared_bytes(problem.E, padded_rank(problem), problem.gates);
        add("TILE_C", tile.c);
        add("TILE_R", tile.r);
        add("WARPS", tile.warps);
        add("STAGES", tile.stages);
        columns = tile.span();
        ranks = tile.r;
    } else {
        const GradientTile tile = gradient_tile(configuration);
        spec.threads = tile.threads();
        spec.min_blocks = static_cast<unsigned>(tile.min_blocks);
        spec.dynamic_shared = tile.shared_bytes(problem.E);
        add("TILE_C", tile.c);
        add("TILE_R", tile.r);
        add("TILE_K", tile.k);
        add("WARPS", tile.warps);
        add("STAGES", tile.stages);
        columns = tile.c;
        ranks = tile.r;
    }
    step.column_tiles = static_cast<int>(((wide_a + columns - 1) / columns + (wide_b + columns - 1) / columns) *
                                         ((problem.R + ranks - 1) / ranks));
    return step;
}

plan::Step gradients_reduce_step(const Problem& problem, const plan::Variant& variant) {
    plan::Step step;
    step.spec.family = "lora_gradient_reduce";
    step.spec.threads = lora_gradient_reduce::block_threads;
    step.spec.dynamic_shared =
        static_cast<unsigned>(lora_gradient_reduce::shared_memory(static_cast<int>(problem.E)).bytes);
    const std::int64_t wide_a = variant.wants_da ? problem.K : 0;
    const std::int64_t wide_b = variant.wants_db ? problem.N : 0;
    const auto pieces = [&](std::int64_t wide) {
        return lora_gradient_reduce::pieces(static_cast<int>(wide), static_cast<int>(problem.R));
    };
    step.column_tiles = pieces(wide_a) + pieces(wide_b);
    step.spec.constants = {
        {"E", problem.E},
        {"WIDE_A", wide_a},
        {"WIDE_B", wide_b},
        {"RANK", problem.R},
        {"Output", type_name(problem.adapter_dtype)},
        {"Index", type_name(problem.index_dtype)},
    };
    return step;
}

plan::Step gradient_step(const Problem& problem, std::int64_t width, RowOrder rows) {
    plan::Step step;
    step.spec.family = "lora_gradient_simt";
    step.spec.threads = lora_gradient_simt::block_threads;
    step.spec.constants = gradient_constants(problem, width, rows);
    step.column_tiles = lora_gradient_simt::tiles(static_cast<int>(width), static_cast<int>(problem.R));
    return step;
}

plan::Step reference_gradient_step(const Problem& problem, std::int64_t width, RowOrder rows) {
    plan::Step step;
    step.spec.family = "lora_gradient_reference";
    step.spec.threads = 256;
    step.spec.constants = gradient_constants(problem, width, rows);
    return step;
}

}  // namespace smlora::families
