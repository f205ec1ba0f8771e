// backward_input: dX, and the gates' gradient on the way.
#include "args/combine.h"
#include "args/gate_gradient.h"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "families/projection.hpp"
#include "families/wgmma_product.hpp"

namespace smlora {
namespace ops {
namespace {

struct BackwardInputScratch {
    void* yb = nullptr;
    void* progress = nullptr;
    void* dx = nullptr;
};

/// The pieces that do not depend on the adapter's strides; those of the packed adapter follow.
BackwardInputScratch take_backward_input(const Problem& problem, std::int64_t M, bool yb_given,
                                         engine::Scratch& scratch) {
    BackwardInputScratch pieces;
    if (problem.R > 0 && !yb_given) pieces.yb = scratch.take(families::rank_rows_bytes(problem, M));
    if (problem.R > 0) pieces.progress = scratch.take(families::wgmma_progress_bytes(problem.E, M));
    if (problem.x_rows == RowOrder::token) {
        pieces.dx = scratch.take(M * problem.K * static_cast<std::int64_t>(size_of(problem.dtype)));
    }
    return pieces;
}

std::size_t scratch_bytes(const Problem& problem, std::int64_t M, bool yb_given, bool pack_a, bool pack_b) {
    engine::Scratch measure;
    take_backward_input(problem, M, yb_given, measure);
    if (pack_a) measure.take(families::packed_a_bytes(problem));
    if (pack_b) measure.take(families::packed_b_bytes(problem));
    return measure.used();
}

void backward_input_cuda(const Engine& engine, Stream stream, const Problem& problem, const BackwardInputArgs& args,
                         std::int64_t T) {
    if (T == 0) return;
    const std::int64_t M = T * problem.top_k;
    const bool lora = problem.R > 0;
    engine::CudaCall call(engine, stream);
    plan::Variant variant;
    variant.operation = plan::Operation::backward_input;
    variant.bucket = tune::bucket_of(T);
    variant.tensor_cores = families::tensor_cores_fit(problem, {&args.dy, &args.W, &args.dx}, {&args.yb});
    variant.wants_dgates = args.dgates.given();
    variant.vector_rows = families::rows_aligned({&args.dx, variant.wants_dgates ? &args.x : &args.dx});
    variant.vector_bias = variant.wants_dgates && problem.bias && families::rows_aligned({&args.dy, &args.bias});
    if (lora) families::set_packing(variant, problem, args.A, args.B);
    const plan::CallRows rows{args.routing, T};
    const plan::Plan& plan = call.plan(problem, variant, &rows);

    const engine::ScratchBlock block(
        args.workspace, scratch_bytes(problem, M, args.yb.given(), variant.pack_a, variant.pack_b), call.stream());
    engine::Scratch scratch(block.data());
    const BackwardInputScratch pieces = take_backward_input(problem, M, args.yb.given(), scratch);

    families::ProductAdapter adapter;
    if (lora) {
        adapter.ranked = families::adapter_b(call, plan, problem, args.B, scratch);
        adapter.adapted = families::adapter_a(call, plan, problem, args.A, scratch);
        adapter.scaling = args.scaling;
        adapter.progress = pieces.progress;
        adapter.rank_rows = args.yb.given() ? args.yb.data : pieces.yb;
    }
    GroupedProductArgs product = families::product_args(problem, args.routing, M);
    const bool reduced = plan.has(plan::Role::combine);
    product.weight = args.W.data;
    product.weight_expert_stride = args.W.strides[0];
    product.gates = args.gates.data;
    product.out = reduced ? pieces.dx : args.dx.data;
    product.out_stride = reduced ? problem.K : families::row_stride(args.dx);
    families::launch_product(call, plan, plan::Role::yb, problem, args.dy, adapter, product);

    if (plan.has(plan::Role::gate_gradient)) {
        GateGradientArgs gradient{};
        gradient.left = product.out;
        gradient.left_stride = product.out_stride;
        gradient.right = args.x.data;
        gradient.right_stride = families::row_stride(args.x);
        gradient.bias_rows = args.dy.data;
        gradient.bias_rows_stride = families::row_stride(args.dy);
        gradient.bias = args.bias.data;
        gradient.gates = args.gates.data;
        gradient.scattered_idxs = args.routing.sorted_scattered_idxs.data;
        gradient.expert_offsets = args.routing.expert_offsets.data;
        gradient.dgates = args.dgates.data;
        gradient.M = static_cast<int>(M);
        call.launch_rows(plan, plan::Role::gate_gradient, M, gradient);
    }
    if (reduced) {
        const CombineKernelArgs combine{
            pieces.dx, problem.K, args.gates.data, args.dx.data, families::row_stride(args.dx), static_cast<int>(T)};
        call.launch_rows(plan, plan::Role::combine, T, combine, gpu::Begin::during_last_kernel);
    }
}

}  // namespace
}  // namespace ops

void backward_input(const Engine& engine, Stream stream, const Problem& problem, const BackwardInputArgs& args) {
    const std::int64_t T = check::validate_backward_input(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::backward_input(engine.impl().threads, problem, args);
    } else {
        ops::backward_input_cuda(engine, stream, problem, args, T);
    }
}

std::size_t backward_input_workspace(const Engine& engine, const Problem& problem, std::int64_t T) {
    check::validate_tokens(problem, T);
    if (engine.backend() == Backend::cpu || T == 0) return 0;
    const bool lora = problem.R > 0;
    return ops::scratch_bytes(problem, T * problem.top_k, false, lora, lora);
}

}  // namespace smlora
