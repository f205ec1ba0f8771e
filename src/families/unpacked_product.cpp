#include "families/unpacked_product.hpp"

#include "args/unpack_weights.h"

#include <algorithm>

namespace smlora::families {
namespace {

const void* element_of(const void* data, DType dtype, std::int64_t index) {
    if (data == nullptr) return nullptr;
    return static_cast<const char*>(data) + index * static_cast<std::int64_t>(size_of(dtype));
}

/// The matrices of the experts from `first` on.
AdapterMatrix from_expert(AdapterMatrix matrix, std::int64_t first, DType dtype) {
    matrix.data = element_of(matrix.data, dtype, first * matrix.expert_stride);
    return matrix;
}

}  // namespace

std::int64_t slice_rows_bytes(const Problem& problem, std::int64_t experts) {
    return (experts + 2) * static_cast<std::int64_t>(size_of(problem.index_dtype));
}

void launch_unpacked_product(const Launcher& launcher, const Problem& problem, const UnpackedProduct& product,
                             const Weight& weight, const Tensor& rows, const Adapter& adapter, GroupedProductArgs all) {
    launch_rank_rows(launcher, product.steps, problem, rows, adapter, all);
    set_operands(all, rows, adapter);
    const std::int64_t experts = product.slice > 0 ? product.slice : problem.E;
    UnpackWeightsArgs unpacking = unpack_args(weight, product.weights);
    unpacking.expert_offsets = all.expert_offsets;
    unpacking.slice_experts = static_cast<int>(experts);
    unpacking.M = all.M;
    GroupedProductArgs slice = all;
    slice.weight = unpacking.out;
    slice.weight_expert_stride = problem.K * problem.N;
    if (product.slice > 0) slice.expert_offsets = unpacking.slice = product.slice_rows;
    for (std::int64_t first = 0; first < problem.E; first += experts) {
        unpacking.first_expert = static_cast<int>(first);
        unpacking.experts = static_cast<int>(std::min(experts, problem.E - first));
        launch_unpack(launcher, product.unpack, unpacking);

        Adapter lora = adapter;
        lora.ranked = from_expert(adapter.ranked, first, problem.dtype);
        slice.lora_weight = element_of(all.lora_weight, problem.dtype, first * all.lora_expert_stride);
        slice.bias = element_of(all.bias, problem.dtype, first * problem.N);
        product.steps.product->product_launch->launch(launcher, *product.steps.product, slice, lora, {},
                                                      gpu::Begin::after_earlier_work);
    }
}

}  // namespace smlora::families
