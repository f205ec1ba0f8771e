#include "ops/projection_call.hpp"

#include "args/combine.h"
#include "args/permute_rows.h"
#include "args/unpack_weights.h"
#include "families/unpack.hpp"

#include <algorithm>

namespace smlora::ops {
namespace {

using plan::Role;

const void* element_of(const void* data, DType dtype, std::int64_t index) {
    if (data == nullptr) return nullptr;
    return static_cast<const char*>(data) + index * static_cast<std::int64_t>(size_of(dtype));
}

/// Columns of the product's rows.
std::int64_t width_of(const Problem& problem, Direction direction) {
    return direction == Direction::forward ? problem.N : problem.K;
}

/// Rows and columns of what the product multiplies.
std::int64_t rows_of(const Problem& problem, std::int64_t M, Direction direction) {
    return (direction == Direction::forward ? problem.x_rows : problem.y_rows) == RowOrder::token ? M / problem.top_k
                                                                                                  : M;
}
std::int64_t red_of(const Problem& problem, Direction direction) {
    return direction == Direction::forward ? problem.K : problem.N;
}

/// Without rank rows that are given they lie in it, too.
ProjectionScratch projection_scratch(const Problem& problem, std::int64_t M, Direction direction,
                                     const families::Packing& packing, bool rank_rows_given,
                                     std::int64_t unpacked_experts, bool permutes_rows) {
    const bool forward = direction == Direction::forward;
    const bool lora = problem.R > 0;
    const bool summed = (forward ? problem.y_rows : problem.x_rows) == RowOrder::token;
    const bool rank_rows = lora && !rank_rows_given;
    return {problem, M,
            ScratchNeeds{
                .product = lora,
                .xa = forward && rank_rows,
                .yb = !forward && rank_rows,
                .summed_columns = summed ? width_of(problem, direction) : 0,
                .packed_a = packing.a.has_value(),
                .packed_b = packing.b.has_value(),
                .unpacked_experts = unpacked_experts,
                .permuted_elements = permutes_rows ? rows_of(problem, M, direction) * red_of(problem, direction) : 0}};
}

/// Experts of a launch of the product.
std::int64_t experts_at_once(const Problem& problem, const plan::Unpack& unpack) {
    return unpack.slice > 0 ? unpack.slice : problem.E;
}

/// The matrices of the experts from `first` on.
families::AdapterMatrix from_expert(families::AdapterMatrix matrix, std::int64_t first, DType dtype) {
    matrix.data = element_of(matrix.data, dtype, first * matrix.expert_stride);
    return matrix;
}

/// The tensors that both operations call alike, beside those that they do not.
template <class Args>
Projection projection_of(const Args& args, Direction direction, std::int64_t T, const Tensor& rows, const Tensor& out,
                         const Tensor& rank_rows) {
    return {.direction = direction,
            .T = T,
            .rows = rows,
            .out = out,
            .rank_rows = rank_rows,
            .routing = args.routing,
            .W = args.W,
            .A = args.A,
            .B = args.B,
            .bias = args.bias,
            .gates = args.gates,
            .scaling = args.scaling,
            .workspace = args.workspace};
}

}  // namespace

Projection projection_of(const ForwardArgs& args, std::int64_t T) {
    return projection_of(args, Direction::forward, T, args.x, args.y, args.xa);
}

Projection projection_of(const BackwardInputArgs& args, std::int64_t T) {
    return projection_of(args, Direction::backward, T, args.dy, args.dx, args.yb);
}

Tensor plain_weights(const Problem& problem, const Weight& W) {
    if (W.encoding == Encoding::plain) return W.codes;
    return {nullptr, problem.dtype, {W.E, W.rows, W.columns}};
}

std::size_t projection_workspace(const Engine& engine, const Problem& problem, std::int64_t T, Direction direction) {
    families::Packing packing;
    if (problem.R > 0) packing = {families::PackWork{}, families::PackWork{}};
    const bool quantised = problem.weights.encoding != Encoding::plain;
    const std::int64_t unpacked = quantised ? families::slice_experts(problem, engine.impl().unpack_limit) : 0;
    return projection_scratch(problem, T * problem.top_k, direction, packing, false, unpacked,
                              families::can_multiply_codes(problem))
        .memory.bytes();
}

ProjectionCall::ProjectionCall(const engine::CudaCall& call, const plan::Plan& plan, const Problem& problem,
                               const Projection& projection, const families::Packing& packing,
                               const std::optional<plan::Unpack>& unpack)
    : launcher_(call.launcher()),
      plan_(plan),
      problem_(problem),
      projection_(projection),
      unpack_(unpack),
      scratch_(projection_scratch(
          problem, projection.T * problem.top_k, projection.direction, packing, projection.rank_rows.given(),
          plan.has(Role::unpack) ? experts_at_once(problem, *unpack) : 0, plan.has(Role::permute_rows))) {
    scratch_.memory.allocate(projection.workspace, call.stream());
}

families::Adapter ProjectionCall::adapter() const {
    if (problem_.R == 0) return {};
    const bool forward = projection_.direction == Direction::forward;
    const auto a = [&] {
        return families::adapter_a(launcher_, plan_.find(Role::pack_a), problem_, projection_.A,
                                   scratch_.memory.at(scratch_.packed_a));
    };
    const auto b = [&] {
        return families::adapter_b(launcher_, plan_.find(Role::pack_b), problem_, projection_.B,
                                   scratch_.memory.at(scratch_.packed_b));
    };
    families::Adapter adapter;
    adapter.ranked = forward ? a() : b();
    adapter.adapted = forward ? b() : a();
    adapter.scaling = projection_.scaling;
    adapter.rank_rows = projection_.rank_rows.given() ? projection_.rank_rows.data
                                                      : scratch_.memory.at(forward ? scratch_.xa : scratch_.yb);
    adapter.scratch = scratch_.memory.at(scratch_.product);
    return adapter;
}

GroupedProductArgs ProjectionCall::launch_product() const {
    const bool forward = projection_.direction == Direction::forward;
    const bool summed = plan_.has(Role::combine);
    GroupedProductArgs args = families::product_args(problem_, projection_.routing, projection_.T * problem_.top_k);
    args.bias = projection_.bias.data;
    args.gates = projection_.gates.data;
    args.out = summed ? scratch_.memory.at(scratch_.rows) : projection_.out.data;
    args.out_stride = summed ? width_of(problem_, projection_.direction) : families::row_stride(projection_.out);
    const families::ProductSteps steps{.rank_rows = plan_.find(forward ? Role::xa : Role::yb),
                                       .product = plan_.find(Role::product)};
    if (plan_.has(Role::unpack)) {
        launch_slices(steps, args);
        return args;
    }
    args.weight = projection_.W.codes.data;
    args.weight_expert_stride = projection_.W.codes.strides[0];
    families::launch_product(launcher_, steps, problem_, {projection_.rows, product_rows()}, adapter(), args,
                             {projection_.W.scales.data, static_cast<const float*>(projection_.W.table.data)});
    return args;
}

Tensor ProjectionCall::product_rows() const {
    const families::Step* const step = plan_.find(Role::permute_rows);
    if (step == nullptr) return projection_.rows;
    const std::int64_t count = projection_.rows.shape[0];
    const std::int64_t columns = projection_.rows.shape[1];
    void* const permuted = scratch_.memory.at(scratch_.permuted);
    const PermuteRowsArgs args{projection_.rows.data, families::row_stride(projection_.rows), permuted,
                               static_cast<int>(count)};
    launcher_.launch_rows(*step, count, args);
    return {permuted, problem_.dtype, {count, columns}};
}

void ProjectionCall::launch_slices(const families::ProductSteps& steps, GroupedProductArgs all) const {
    const families::Adapter adapter = this->adapter();
    families::launch_rank_rows(launcher_, steps, problem_, projection_.rows, adapter, all);
    families::set_operands(all, projection_.rows, adapter);
    const std::int64_t experts = experts_at_once(problem_, *unpack_);
    UnpackWeightsArgs unpacking = families::unpack_args(projection_.W, scratch_.memory.at(scratch_.weights));
    unpacking.expert_offsets = all.expert_offsets;
    unpacking.slice_experts = static_cast<int>(experts);
    unpacking.M = all.M;
    GroupedProductArgs slice = all;
    slice.weight = unpacking.out;
    slice.weight_expert_stride = problem_.K * problem_.N;
    if (unpack_->slice > 0) slice.expert_offsets = unpacking.slice = scratch_.memory.at(scratch_.slice);
    for (std::int64_t first = 0; first < problem_.E; first += experts) {
        unpacking.first_expert = static_cast<int>(first);
        unpacking.experts = static_cast<int>(std::min(experts, problem_.E - first));
        families::launch_unpack(launcher_, plan_.at(Role::unpack), unpacking);

        families::Adapter lora = adapter;
        lora.ranked = from_expert(adapter.ranked, first, problem_.dtype);
        slice.lora_weight = element_of(all.lora_weight, problem_.dtype, first * all.lora_expert_stride);
        slice.bias = element_of(all.bias, problem_.dtype, first * problem_.N);
        steps.product->product_launch->launch(launcher_, *steps.product, slice, lora, {},
                                              gpu::Begin::after_earlier_work);
    }
}

void ProjectionCall::launch_sum() const {
    const families::Step* const step = plan_.find(Role::combine);
    if (step == nullptr) return;
    const CombineKernelArgs sum{scratch_.memory.at(scratch_.rows),
                                width_of(problem_, projection_.direction),
                                projection_.gates.data,
                                projection_.out.data,
                                families::row_stride(projection_.out),
                                static_cast<int>(projection_.T)};
    launcher_.launch_rows(*step, projection_.T, sum, gpu::Begin::during_last_kernel);
}

}  // namespace smlora::ops
