#include "families/projection.hpp"

#include "args/pack_adapter.h"
#include "families/wgmma_product.hpp"

#include <algorithm>

namespace smlora::families {
namespace {

bool aligned16(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

std::int64_t bytes_of(const Problem& problem, std::int64_t elements) {
    return elements * static_cast<std::int64_t>(size_of(problem.dtype));
}

AdapterMatrix adapter(engine::CudaCall& call, const plan::Plan& plan, plan::Role role, const Tensor& view,
                      std::int64_t outer, std::int64_t inner, const Problem& problem, engine::Scratch& scratch) {
    if (!plan.has(role)) return {view.data, view.strides[0], view.strides[1]};
    PackAdapterArgs args{};
    args.source = view.data;
    args.expert_stride = view.strides[0];
    args.outer_stride = view.strides[1];
    args.inner_stride = view.strides[2];
    args.packed = scratch.take(bytes_of(problem, problem.E * outer * inner));
    const plan::Step& step = plan.at(role);
    call.launch(plan, step, (problem.E * outer * inner + step.tile_rows - 1) / step.tile_rows, args);
    return {args.packed, outer * inner, inner};
}

/// A product on mma.sync or plain arithmetic.
void launch_portable(engine::CudaCall& call, const plan::Plan& plan, const plan::Step& step, const Problem& problem,
                     const GroupedProductArgs& args) {
    // An upper bound of the row tiles: each expert, and the entries left out, may have one that is not full.
    const std::int64_t row_tiles = args.M / step.tile_rows + problem.E + 1;
    call.launch(plan, step, row_tiles * step.column_tiles, args);
}

}  // namespace

bool rows_aligned(std::initializer_list<const Tensor*> tensors) {
    return std::all_of(tensors.begin(), tensors.end(), [](const Tensor* tensor) {
        if (!tensor->given()) return true;
        const auto per_16_bytes = static_cast<std::int64_t>(16 / size_of(tensor->dtype));
        bool aligned = aligned16(tensor->data);
        for (std::int32_t i = 0; i + 1 < tensor->ndim; ++i) {
            aligned = aligned && tensor->strides[static_cast<std::size_t>(i)] % per_16_bytes == 0;
        }
        return aligned && tensor->shape[static_cast<std::size_t>(tensor->ndim - 1)] % per_16_bytes == 0;
    });
}

bool tensor_cores_fit(const Problem& problem, std::initializer_list<const Tensor*> tensors,
                      std::initializer_list<const Tensor*> rank_rows) {
    if (size_of(problem.dtype) != 2 || !rows_aligned(tensors)) return false;
    if (!std::all_of(rank_rows.begin(), rank_rows.end(), [](const Tensor* rows) { return aligned16(rows->data); })) {
        return false;
    }
    // Row offsets are counted in 16-byte units in 32 bits.
    constexpr std::int64_t limit = std::int64_t{1} << 32;
    return std::all_of(tensors.begin(), tensors.end(), [](const Tensor* tensor) {
        return tensor->ndim != 2 || tensor->shape[0] * tensor->strides[0] / 8 < limit;
    });
}

bool needs_packing(const Problem& problem, const Tensor& view, bool tensor_cores) {
    if (!view.given()) return false;
    if (view.dtype != problem.dtype || view.strides[2] != 1) return true;
    return tensor_cores &&
           (problem.R % 8 != 0 || view.strides[0] % 8 != 0 || view.strides[1] % 8 != 0 || !aligned16(view.data));
}

std::int8_t fastest_dimension(const Tensor& view) {
    if (view.strides[2] <= view.strides[1] && view.strides[2] <= view.strides[0]) return 0;
    return view.strides[1] <= view.strides[0] ? 1 : 2;
}

void set_packing(plan::Variant& variant, const Problem& problem, const Tensor& A, const Tensor& B) {
    variant.pack_a = needs_packing(problem, A, variant.tensor_cores);
    variant.pack_b = needs_packing(problem, B, variant.tensor_cores);
    if (variant.pack_a) variant.fastest_a = fastest_dimension(A);
    if (variant.pack_b) variant.fastest_b = fastest_dimension(B);
}

std::int64_t packed_a_bytes(const Problem& problem) {
    return bytes_of(problem, problem.E * padded_rank(problem) * problem.K);
}

std::int64_t packed_b_bytes(const Problem& problem) {
    return bytes_of(problem, problem.E * padded_rank(problem) * problem.N);
}

std::int64_t rank_rows_bytes(const Problem& problem, std::int64_t M) {
    return bytes_of(problem, M * padded_rank(problem));
}

AdapterMatrix adapter_a(engine::CudaCall& call, const plan::Plan& plan, const Problem& problem, const Tensor& A,
                        engine::Scratch& scratch) {
    return adapter(call, plan, plan::Role::pack_a, A, padded_rank(problem), problem.K, problem, scratch);
}

AdapterMatrix adapter_b(engine::CudaCall& call, const plan::Plan& plan, const Problem& problem, const Tensor& B,
                        engine::Scratch& scratch) {
    return adapter(call, plan, plan::Role::pack_b, B, problem.N, padded_rank(problem), problem, scratch);
}

GroupedProductArgs product_args(const Problem& problem, const Routing& routing, std::int64_t M) {
    GroupedProductArgs args{};
    args.weight_row_stride = problem.weight_layout == WeightLayout::ekn ? problem.N : problem.K;
    args.scattered_idxs = routing.sorted_scattered_idxs.data;
    args.expert_offsets = routing.expert_offsets.data;
    args.scale = 1.0F;
    args.M = static_cast<int>(M);
    return args;
}

void launch_rank_product(engine::CudaCall& call, const plan::Plan& plan, plan::Role role, GroupedProductArgs args,
                         const Tensor& rows, const AdapterMatrix& matrix, float scaling, void* out,
                         const Problem& problem) {
    args.rows = rows.data;
    args.rows_stride = row_stride(rows);
    args.weight = matrix.data;
    args.weight_expert_stride = matrix.expert_stride;
    args.weight_row_stride = matrix.row_stride;
    args.out = out;
    args.out_stride = padded_rank(problem);
    args.scale = scaling;
    launch_portable(call, plan, plan.at(role), problem, args);
}

void launch_product(engine::CudaCall& call, const plan::Plan& plan, plan::Role rank_role, const Problem& problem,
                    const Tensor& rows, const ProductAdapter& adapter, GroupedProductArgs args) {
    if (plan.has(rank_role)) {
        launch_rank_product(call, plan, rank_role, args, rows, adapter.ranked, adapter.scaling, adapter.rank_rows,
                            problem);
    }
    args.rows = rows.data;
    args.rows_stride = row_stride(rows);
    args.lora_rows = adapter.rank_rows;
    args.lora_weight = adapter.adapted.data;
    args.lora_expert_stride = adapter.adapted.expert_stride;
    args.lora_row_stride = adapter.adapted.row_stride;
    const plan::Step& step = plan.at(plan::Role::product);
    if (!step.wgmma) return launch_portable(call, plan, step, problem, args);
    const RankRows rank_rows{adapter.ranked.data,       adapter.ranked.expert_stride,
                             adapter.ranked.row_stride, adapter.scaling,
                             adapter.rank_rows,         adapter.progress};
    // It needs the rank rows of the kernel before it only at the end of its first tiles.
    launch_wgmma(call, plan, step, args, rank_rows,
                 plan.has(rank_role) ? gpu::Begin::during_last_kernel : gpu::Begin::after_earlier_work);
}

}  // namespace smlora::families
