#include "ops/projection_call.hpp"

#include "args/combine.h"
#include "families/unpack.hpp"
#include "families/unpacked_product.hpp"

namespace smlora::ops {
namespace {

using plan::Role;

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
          plan.has(Role::unpack) ? plan::experts_at_once(problem, *unpack) : 0, plan.has(Role::permute_rows))) {
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
    if (const families::Step* const unpack = plan_.find(Role::unpack)) {
        families::launch_unpacked_product(launcher_, problem_,
                                          {.unpack = *unpack,
                                           .steps = steps,
                                           .slice = unpack_->slice,
                                           .weights = scratch_.memory.at(scratch_.weights),
                                           .slice_rows = scratch_.memory.at(scratch_.slice)},
                                          projection_.W, projection_.rows, adapter(), args);
        return args;
    }
    const Tensor rows = families::permuted_rows(launcher_, plan_.find(Role::permute_rows), projection_.rows,
                                                scratch_.memory.at(scratch_.permuted));
    args.weight = projection_.W.codes.data;
    args.weight_expert_stride = projection_.W.codes.strides[0];
    families::launch_product(launcher_, steps, problem_, {projection_.rows, rows}, adapter(), args,
                             {projection_.W.scales.data, static_cast<const float*>(projection_.W.table.data)});
    return args;
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
