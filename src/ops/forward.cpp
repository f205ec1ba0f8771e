// forward and scatter2scatter.
#include "args/combine.h"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "families/projection.hpp"
#include "families/wgmma_product.hpp"

namespace smlora {
namespace ops {
namespace {

struct ForwardScratch {
    void* xa = nullptr;
    void* progress = nullptr;
    void* y = nullptr;
};

/// The pieces that do not depend on the adapter's strides; those of the packed adapter follow.
ForwardScratch take_forward(const Problem& problem, std::int64_t M, bool xa_given, engine::Scratch& scratch) {
    ForwardScratch pieces;
    if (problem.R > 0 && !xa_given) pieces.xa = scratch.take(families::rank_rows_bytes(problem, M));
    if (problem.R > 0) pieces.progress = scratch.take(families::wgmma_progress_bytes(problem.E, M));
    if (problem.y_rows == RowOrder::token) {
        pieces.y = scratch.take(M * problem.N * static_cast<std::int64_t>(size_of(problem.dtype)));
    }
    return pieces;
}

std::size_t scratch_bytes(const Problem& problem, std::int64_t M, bool xa_given, bool pack_a, bool pack_b) {
    engine::Scratch measure;
    take_forward(problem, M, xa_given, measure);
    if (pack_a) measure.take(families::packed_a_bytes(problem));
    if (pack_b) measure.take(families::packed_b_bytes(problem));
    return measure.used();
}

void forward_cuda(const Engine& engine, Stream stream, const Problem& problem, const ForwardArgs& args,
                  std::int64_t T) {
    if (T == 0) return;
    const std::int64_t M = T * problem.top_k;
    const bool lora = problem.R > 0;
    engine::CudaCall call(engine, stream);
    plan::Variant variant;
    variant.operation = plan::Operation::forward;
    variant.bucket = tune::bucket_of(T);
    variant.tensor_cores = families::tensor_cores_fit(problem, {&args.x, &args.W, &args.y}, {&args.xa});
    variant.vector_rows = families::rows_aligned({&args.y});
    if (lora) families::set_packing(variant, problem, args.A, args.B);
    const plan::CallRows rows{args.routing, T};
    const plan::Plan& plan = call.plan(problem, variant, &rows);

    const engine::ScratchBlock block(
        args.workspace, scratch_bytes(problem, M, args.xa.given(), variant.pack_a, variant.pack_b), call.stream());
    engine::Scratch scratch(block.data());
    const ForwardScratch pieces = take_forward(problem, M, args.xa.given(), scratch);

    families::ProductAdapter adapter;
    if (lora) {
        adapter.ranked = families::adapter_a(call, plan, problem, args.A, scratch);
        adapter.adapted = families::adapter_b(call, plan, problem, args.B, scratch);
        adapter.scaling = args.scaling;
        adapter.progress = pieces.progress;
        adapter.rank_rows = args.xa.given() ? args.xa.data : pieces.xa;
    }
    GroupedProductArgs product = families::product_args(problem, args.routing, M);
    product.weight = args.W.data;
    product.weight_expert_stride = args.W.strides[0];
    product.bias = args.bias.data;
    const bool combined = plan.has(plan::Role::combine);
    product.out = combined ? pieces.y : args.y.data;
    product.out_stride = combined ? problem.N : families::row_stride(args.y);
    families::launch_product(call, plan, plan::Role::xa, problem, args.x, adapter, product);

    if (combined) {
        const CombineKernelArgs combine{
            pieces.y, problem.N, args.gates.data, args.y.data, families::row_stride(args.y), static_cast<int>(T)};
        call.launch_rows(plan, plan::Role::combine, T, combine, gpu::Begin::during_last_kernel);
    }
}

}  // namespace
}  // namespace ops

void forward(const Engine& engine, Stream stream, const Problem& problem, const ForwardArgs& args) {
    const std::int64_t T = check::validate_forward(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::forward(engine.impl().threads, problem, args);
    } else {
        ops::forward_cuda(engine, stream, problem, args, T);
    }
}

void scatter2scatter(const Engine& engine, Stream stream, const Problem& problem, const ForwardArgs& args) {
    Problem base = problem;
    base.R = 0;
    ForwardArgs base_args = args;
    base_args.A = {};
    base_args.B = {};
    base_args.xa = {};
    forward(engine, stream, base, base_args);
}

std::size_t forward_workspace(const Engine& engine, const Problem& problem, std::int64_t T) {
    check::validate_tokens(problem, T);
    if (engine.backend() == Backend::cpu || T == 0) return 0;
    const bool lora = problem.R > 0;
    return ops::scratch_bytes(problem, T * problem.top_k, false, lora, lora);
}

}  // namespace smlora
