// group, combine and combine_backward.
#include "args/combine.h"
#include "args/gate_gradient.h"
#include "args/gather_rows.h"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "families/projection.hpp"

namespace smlora {
namespace ops {
namespace {

std::int64_t width_of(const Tensor& rows) { return rows.shape[1]; }

void group_cuda(const Engine& engine, Stream stream, const Problem& problem, const GroupArgs& args, std::int64_t T) {
    if (T == 0) return;
    const std::int64_t M = T * problem.top_k;
    engine::CudaCall call(engine, stream);
    plan::Variant variant;
    variant.operation = plan::Operation::group;
    variant.vector_rows = families::rows_aligned({&args.x, &args.out});
    variant.gated = args.gates.given();
    variant.width = width_of(args.x);
    const plan::Plan& plan = call.plan(problem, variant);
    GatherRowsArgs gather{};
    gather.rows = args.x.data;
    gather.rows_stride = families::row_stride(args.x);
    gather.gates = args.gates.data;
    gather.scattered_idxs = args.routing.sorted_scattered_idxs.data;
    gather.expert_offsets = args.routing.expert_offsets.data;
    gather.out = args.out.data;
    gather.out_stride = families::row_stride(args.out);
    gather.M = static_cast<int>(M);
    call.launch_rows(plan, plan::Role::gather_rows, M, gather);
}

void combine_cuda(const Engine& engine, Stream stream, const Problem& problem, const CombineArgs& args,
                  std::int64_t T) {
    if (T == 0) return;
    engine::CudaCall call(engine, stream);
    plan::Variant variant;
    variant.operation = plan::Operation::combine;
    variant.vector_rows = families::rows_aligned({&args.y, &args.out});
    variant.gated = args.gates.given();
    variant.width = width_of(args.y);
    const plan::Plan& plan = call.plan(problem, variant);
    const CombineKernelArgs combine{args.y.data,   families::row_stride(args.y),   args.gates.data,
                                    args.out.data, families::row_stride(args.out), static_cast<int>(T)};
    call.launch_rows(plan, plan::Role::combine, T, combine);
}

void combine_backward_cuda(const Engine& engine, Stream stream, const Problem& problem, const CombineBackwardArgs& args,
                           std::int64_t T) {
    if (T == 0) return;
    const std::int64_t M = T * problem.top_k;
    engine::CudaCall call(engine, stream);
    plan::Variant variant;
    variant.operation = plan::Operation::combine_backward;
    variant.wants_dy = args.dy.given();
    variant.wants_dgates = args.dgates.given();
    variant.vector_rows = families::rows_aligned({&args.dout, &args.y, &args.dy});
    variant.gated = args.gates.given();
    variant.width = width_of(args.dout);
    const plan::Plan& plan = call.plan(problem, variant);
    if (variant.wants_dy) {
        GatherRowsArgs gather{};
        gather.rows = args.dout.data;
        gather.rows_stride = families::row_stride(args.dout);
        gather.gates = args.gates.data;
        gather.out = args.dy.data;
        gather.out_stride = families::row_stride(args.dy);
        gather.M = static_cast<int>(M);
        call.launch_rows(plan, plan::Role::gather_rows, M, gather);
    }
    if (variant.wants_dgates) {
        GateGradientArgs gradient{};
        gradient.left = args.dout.data;
        gradient.left_stride = families::row_stride(args.dout);
        gradient.right = args.y.data;
        gradient.right_stride = families::row_stride(args.y);
        gradient.dgates = args.dgates.data;
        gradient.M = static_cast<int>(M);
        call.launch_rows(plan, plan::Role::gate_gradient, M, gradient);
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
