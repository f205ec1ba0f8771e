// group, combine and combine_backward.
#include "args/combine.h"
#include "args/gate_gradient.h"
#include "args/gather_rows.h"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "engine/cuda_call.hpp"
#include "families/tensor_layout.hpp"

#include <initializer_list>

namespace smlora {
namespace ops {
namespace {

/// `tensors`: all that are read or written row by row.
families::RowShape shape_of(const Tensor& rows, std::initializer_list<const Tensor*> tensors) {
    return {rows.shape[1], families::rows_aligned(tensors)};
}

void group_cuda(const Engine& engine, Stream stream, const Problem& problem, const GroupArgs& args, std::int64_t T) {
    if (T == 0) return;
    const std::int64_t M = T * problem.top_k;
    engine::CudaCall call(engine, stream);
    const plan::Plan& plan =
        call.plan(problem, plan::Group{.rows = shape_of(args.x, {&args.x, &args.out}), .gated = args.gates.given()});
    GatherRowsArgs gather{};
    gather.rows = args.x.data;
    gather.rows_stride = families::row_stride(args.x);
    gather.gates = args.gates.data;
    gather.scattered_idxs = args.routing.sorted_scattered_idxs.data;
    gather.expert_offsets = args.routing.expert_offsets.data;
    gather.out = args.out.data;
    gather.out_stride = families::row_stride(args.out);
    gather.M = static_cast<int>(M);
    call.launcher().launch_rows(plan.at(plan::Role::gather_rows), M, gather);
}

void combine_cuda(const Engine& engine, Stream stream, const Problem& problem, const CombineArgs& args,
                  std::int64_t T) {
    if (T == 0) return;
    engine::CudaCall call(engine, stream);
    const plan::Plan& plan =
        call.plan(problem, plan::Combine{.rows = shape_of(args.y, {&args.y, &args.out}), .gated = args.gates.given()});
    const CombineKernelArgs combine{args.y.data,   families::row_stride(args.y),   args.gates.data,
                                    args.out.data, families::row_stride(args.out), static_cast<int>(T)};
    call.launcher().launch_rows(plan.at(plan::Role::combine), T, combine);
}

void combine_backward_cuda(const Engine& engine, Stream stream, const Problem& problem, const CombineBackwardArgs& args,
                           std::int64_t T) {
    if (T == 0) return;
    const std::int64_t M = T * problem.top_k;
    engine::CudaCall call(engine, stream);
    const plan::Plan& plan =
        call.plan(problem, plan::CombineBackward{.rows = shape_of(args.dout, {&args.dout, &args.y, &args.dy}),
                                                 .gated = args.gates.given(),
                                                 .wants_dy = args.dy.given(),
                                                 .wants_dgates = args.dgates.given()});
    if (const families::Step* step = plan.find(plan::Role::gather_rows)) {
        GatherRowsArgs gather{};
        gather.rows = args.dout.data;
        gather.rows_stride = families::row_stride(args.dout);
        gather.gates = args.gates.data;
        gather.out = args.dy.data;
        gather.out_stride = families::row_stride(args.dy);
        gather.M = static_cast<int>(M);
        call.launcher().launch_rows(*step, M, gather);
    }
    if (const families::Step* step = plan.find(plan::Role::gate_gradient)) {
        GateGradientArgs gradient{};
        gradient.left = args.dout.data;
        gradient.left_stride = families::row_stride(args.dout);
        gradient.right = args.y.data;
        gradient.right_stride = families::row_stride(args.y);
        gradient.dgates = args.dgates.data;
        gradient.M = static_cast<int>(M);
        call.launcher().launch_rows(*step, M, gradient);
    }
}

}  // namespace
}  // namespace ops

void group(const Engine& engine, Stream stream, const Problem& problem, const GroupArgs& args) {
    const std::int64_t T = check::validate_group(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::group(engine.impl().threads, problem, args);
    } else {
        ops::group_cuda(engine, stream, problem, args, T);
    }
}

void combine(const Engine& engine, Stream stream, const Problem& problem, const CombineArgs& args) {
    const std::int64_t T = check::validate_combine(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::combine(engine.impl().threads, problem, args);
    } else {
        ops::combine_cuda(engine, stream, problem, args, T);
    }
}

void combine_backward(const Engine& engine, Stream stream, const Problem& problem, const CombineBackwardArgs& args) {
    const std::int64_t T = check::validate_combine_backward(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::combine_backward(engine.impl().threads, problem, args);
    } else {
        ops::combine_backward_cuda(engine, stream, problem, args, T);
    }
}

}  // namespace smlora
