// backward_lora: dA and dB.
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "engine/cuda_call.hpp"
#include "families/gradients.hpp"
#include "families/pack.hpp"
#include "families/product_launch.hpp"
#include "families/tensor_layout.hpp"
#include "ops/projection_scratch.hpp"
#include "tuning/bucket.hpp"

namespace smlora {
namespace ops {
namespace {

using plan::Role;

ProjectionScratch scratch_of(const Problem& problem, std::int64_t M, const plan::BackwardLora& request) {
    return {problem, M,
            ScratchNeeds{.xa = request.needs_xa,
                         .yb = request.needs_yb,
                         .packed_a = request.packing.a.has_value(),
                         .packed_b = request.packing.b.has_value(),
                         .partials_a = request.tensor_cores && request.wants_da,
                         .partials_b = request.tensor_cores && request.wants_db}};
}

plan::BackwardLora request_of(const Problem& problem, const BackwardLoraArgs& args, std::int64_t T) {
    plan::BackwardLora request;
    request.bucket = tuning::bucket_of(T);
    request.wants_da = args.dA.given();
    request.wants_db = args.dB.given();
    request.needs_xa = request.wants_db && !args.xa.given() && T > 0;
    request.needs_yb = request.wants_da && !args.yb.given() && T > 0;
    request.tensor_cores = families::tensor_cores_fit(problem, {&args.x, &args.dy}, {&args.xa, &args.yb});
    request.packing = families::packing_of(problem, request.needs_xa ? args.A : Tensor{},
                                           request.needs_yb ? args.B : Tensor{}, request.tensor_cores);
    return request;
}

/// Launches what makes the rank rows that were not given, and says where they all are.
struct RankRows {
    const void* xa;
    const void* yb;
};

RankRows launch_rank_rows(const families::Launcher& launcher, const plan::Plan& plan, const Problem& problem,
                          const BackwardLoraArgs& args, const GroupedProductArgs& product,
                          const ProjectionScratch& scratch) {
    RankRows made{args.xa.data, args.yb.data};
    if (const families::Step* step = plan.find(Role::xa)) {
        void* const xa = scratch.memory.at(scratch.xa);
        const families::AdapterMatrix A = families::adapter_a(launcher, plan.find(Role::pack_a), problem, args.A,
                                                              scratch.memory.at(scratch.packed_a));
        families::launch_rank_product(launcher, *step, problem, product, args.x, A, args.scaling, xa);
        made.xa = xa;
    }
    if (const families::Step* step = plan.find(Role::yb)) {
        void* const yb = scratch.memory.at(scratch.yb);
        const families::AdapterMatrix B = families::adapter_b(launcher, plan.find(Role::pack_b), problem, args.B,
                                                              scratch.memory.at(scratch.packed_b));
        families::launch_rank_product(launcher, *step, problem, product, args.dy, B, args.scaling, yb);
        made.yb = yb;
    }
    return made;
}

LoraGradientPair gradient_args(const BackwardLoraArgs& args, const GroupedProductArgs& product,
                               const RankRows& rank_rows, const ProjectionScratch& scratch) {
    LoraGradientPair pair{};
    for (LoraGradientArgs* const side : {&pair.a, &pair.b}) {
        side->gates = args.gates.data;
        side->scattered_idxs = product.scattered_idxs;
        side->expert_offsets = product.expert_offsets;
        side->M = product.M;
    }
    if (args.dA.given()) {
        pair.a.wide = args.x.data;
        pair.a.wide_stride = families::row_stride(args.x);
        pair.a.rank_rows = rank_rows.yb;
        pair.a.partials = scratch.memory.at(scratch.partials_a);
        pair.a.out = args.dA.data;
        pair.a.out_expert_stride = args.dA.strides[0];
        pair.a.out_rank_stride = args.dA.strides[1];
        pair.a.out_wide_stride = args.dA.strides[2];
    }
    if (args.dB.given()) {
        pair.b.wide = args.dy.data;
        pair.b.wide_stride = families::row_stride(args.dy);
        pair.b.rank_rows = rank_rows.xa;
        pair.b.partials = scratch.memory.at(scratch.partials_b);
        pair.b.out = args.dB.data;
        pair.b.out_expert_stride = args.dB.strides[0];
        pair.b.out_wide_stride = args.dB.strides[1];
        pair.b.out_rank_stride = args.dB.strides[2];
    }
    return pair;
}

void backward_lora_cuda(const Engine& engine, Stream stream, const Problem& problem, const BackwardLoraArgs& args,
                        std::int64_t T) {
    const std::int64_t M = T * problem.top_k;
    engine::CudaCall call(engine, stream);
    const plan::BackwardLora request = request_of(problem, args, T);
    const plan::CallRows rows{args.routing, T};
    const plan::Plan& plan = call.plan(problem, request, &rows);
    ProjectionScratch scratch = scratch_of(problem, M, request);
    scratch.memory.allocate(args.workspace, call.stream());
    const GroupedProductArgs product = families::product_args(problem, args.routing, M);
    const RankRows rank_rows = launch_rank_rows(call.launcher(), plan, problem, args, product, scratch);
    families::launch_gradients(call.launcher(),
                               {.both = plan.find(Role::gradients),
                                .reduce = plan.find(Role::reduce),
                                .a = plan.find(Role::gradient_a),
                                .b = plan.find(Role::gradient_b)},
                               problem, gradient_args(args, product, rank_rows, scratch));
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
    const plan::BackwardLora everything{.tensor_cores = true,
                                        .wants_da = true,
                                        .wants_db = true,
                                        .needs_xa = true,
                                        .needs_yb = true,
                                        .packing = {families::PackWork{}, families::PackWork{}}};
    return ops::scratch_of(problem, T * problem.top_k, everything).memory.bytes();
}

}  // namespace smlora
