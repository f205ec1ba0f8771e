// backward_lora: dA and dB.
#include "args/lora_gradient.h"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "families/gradient_launch.hpp"
#include "families/projection.hpp"

namespace smlora {
namespace ops {
namespace {

struct BackwardLoraScratch {
    void* xa = nullptr;
    void* yb = nullptr;
    void* partials_a = nullptr;
    void* partials_b = nullptr;
};

/// The pieces that do not depend on the adapter's strides; those of the packed adapter follow.
BackwardLoraScratch take_backward_lora(const Problem& problem, std::int64_t M, const plan::Variant& variant,
                                       engine::Scratch& scratch) {
    BackwardLoraScratch pieces;
    if (variant.needs_xa) pieces.xa = scratch.take(families::rank_rows_bytes(problem, M));
    if (variant.needs_yb) pieces.yb = scratch.take(families::rank_rows_bytes(problem, M));
    if (variant.tensor_cores && variant.wants_da) {
        pieces.partials_a = scratch.take(families::partials_bytes(problem, problem.K, M));
    }
    if (variant.tensor_cores && variant.wants_db) {
        pieces.partials_b = scratch.take(families::partials_bytes(problem, problem.N, M));
    }
    return pieces;
}

std::size_t scratch_bytes(const Problem& problem, std::int64_t M, const plan::Variant& variant) {
    engine::Scratch measure;
    take_backward_lora(problem, M, variant, measure);
    if (variant.pack_a) measure.take(families::packed_a_bytes(problem));
    if (variant.pack_b) measure.take(families::packed_b_bytes(problem));
    return measure.used();
}

void backward_lora_cuda(const Engine& engine, Stream stream, const Problem& problem, const BackwardLoraArgs& args,
                        std::int64_t T) {
    const std::int64_t M = T * problem.top_k;
    engine::CudaCall call(engine, stream);
    plan::Variant variant;
    variant.operation = plan::Operation::backward_lora;
    variant.bucket = tune::bucket_of(T);
    variant.wants_da = args.dA.given();
    variant.wants_db = args.dB.given();
    variant.needs_xa = variant.wants_db && !args.xa.given() && M > 0;
    variant.needs_yb = variant.wants_da && !args.yb.given() && M > 0;
    variant.tensor_cores = families::tensor_cores_fit(problem, {&args.x, &args.dy}, {&args.xa, &args.yb});
    families::set_packing(variant, problem, variant.needs_xa ? args.A : Tensor{}, variant.needs_yb ? args.B : Tensor{});
    const plan::CallRows rows{args.routing, T};
    const plan::Plan& plan = call.plan(problem, variant, &rows);

    const engine::ScratchBlock block(args.workspace, scratch_bytes(problem, M, variant), call.stream());
    engine::Scratch scratch(block.data());
    const BackwardLoraScratch pieces = take_backward_lora(problem, M, variant, scratch);

    const GroupedProductArgs product = families::product_args(problem, args.routing, M);
    if (variant.needs_xa) {
        const families::AdapterMatrix a = families::adapter_a(call, plan, problem, args.A, scratch);
        families::launch_rank_product(call, plan, plan::Role::xa, product, args.x, a, args.scaling, pieces.xa, problem);
    }
    if (variant.needs_yb) {
        const families::AdapterMatrix b = families::adapter_b(call, plan, problem, args.B, scratch);
        families::launch_rank_product(call, plan, plan::Role::yb, product, args.dy, b, args.scaling, pieces.yb,
                                      problem);
    }

    LoraGradientPair pair{};
    for (LoraGradientArgs* const side : {&pair.a, &pair.b}) {
        side->gates = args.gates.data;
        side->scattered_idxs = product.scattered_idxs;
        side->expert_offsets = product.expert_offsets;
        side->M = product.M;
    }
    if (variant.wants_da) {
        pair.a.wide = args.x.data;
        pair.a.wide_stride = families::row_stride(args.x);
        pair.a.rank_rows = variant.needs_yb ? pieces.yb : args.yb.data;
        pair.a.partials = pieces.partials_a;
        pair.a.out = args.dA.data;
        pair.a.out_expert_stride = args.dA.strides[0];
        pair.a.out_rank_stride = args.dA.strides[1];
        pair.a.out_wide_stride = args.dA.strides[2];
    }
    if (variant.wants_db) {
        pair.b.wide = args.dy.data;
        pair.b.wide_stride = families::row_stride(args.dy);
        pair.b.rank_rows = variant.needs_xa ? pieces.xa : args.xa.data;
        pair.b.partials = pieces.partials_b;
        pair.b.out = args.dB.data;
        pair.b.out_expert_stride = args.dB.strides[0];
        pair.b.out_wide_stride = args.dB.strides[1];
        pair.b.out_rank_stride = args.dB.strides[2];
    }
    families::launch_gradients(call, plan, problem, pair);
}

}  // namespace
}  // namespace ops

void backward_lora(const Engine& engine, Stream stream, const Problem& problem, const BackwardLoraArgs& args) {
    const std::int64_t T = check::validate_backward_lora(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::backward_lora(engine.impl().threads, problem, args);
    } else {
        ops::backward_lora_cuda(engine, stream, problem, args, T);
    }
}

std::size_t backward_lora_workspace(const Engine& engine, const Problem& problem, std::int64_t T) {
    check::validate_tokens(problem, T);
    if (engine.backend() == Backend::cpu || problem.R == 0) return 0;
    plan::Variant variant;
    variant.needs_xa = variant.needs_yb = variant.wants_da = variant.wants_db = true;
    variant.tensor_cores = true;
    variant.pack_a = variant.pack_b = true;
    return ops::scratch_bytes(problem, T * problem.top_k, variant);
}

}  // namespace smlora
