// backward_lora: dA and dB.
#include "args/lora_gradient.h"
#include "cpu/operations.hpp"
#include "ops/projection.hpp"
#include "ops/validate.hpp"

#include <algorithm>

namespace smlora {
namespace ops {
namespace {

/// Rows that one block sums before its piece is added to others. Experts of twice the mean are not cut, so that an even
/// routing writes its gradients straight; one expert that has everything is cut into enough pieces to fill a GPU.
std::int64_t chunk_rows(const Problem& problem, std::int64_t width, std::int64_t M) {
    constexpr std::int64_t least = 256;          // below it, adding the pieces up costs more than it spreads
    constexpr std::int64_t blocks_wanted = 512;  // a few for each multiprocessor of the largest GPUs
    constexpr std::int64_t partials_limit = std::int64_t{256} << 20;  // bytes
    const std::int64_t column_tiles = (width + 127) / 128;
    const std::int64_t even = 2 * M / problem.E;
    const std::int64_t spread = M * column_tiles / blocks_wanted;
    const std::int64_t fitting = 2 * M * problem.R * width * 4 / partials_limit;
    return std::max({least, std::min(even, spread), fitting});
}

/// Slots for the pieces: an expert with several has at most 2 rows / chunk of them.
std::int64_t partials_bytes(const Problem& problem, std::int64_t width, std::int64_t M) {
    return 2 * M / chunk_rows(problem, width, M) * problem.R * width * 4;
}

struct BackwardLoraScratch {
    void* xa = nullptr;
    void* yb = nullptr;
    void* partials = nullptr;
};

/// The pieces that do not depend on the adapter's strides; those of the packed adapter follow.
BackwardLoraScratch take_backward_lora(const Problem& problem, std::int64_t M, const Variant& variant,
                                       Scratch& scratch) {
    BackwardLoraScratch pieces;
    if (variant.needs_xa) pieces.xa = scratch.take(rank_rows_bytes(problem, M));
    if (variant.needs_yb) pieces.yb = scratch.take(rank_rows_bytes(problem, M));
    // dA and dB take turns.
    pieces.partials = scratch.take(std::max(variant.wants_da ? partials_bytes(problem, problem.K, M) : 0,
                                            variant.wants_db ? partials_bytes(problem, problem.N, M) : 0));
    return pieces;
}

std::size_t scratch_bytes(const Problem& problem, std::int64_t M, const Variant& variant) {
    Scratch measure;
    take_backward_lora(problem, M, variant, measure);
    if (variant.pack_a) measure.take(packed_a_bytes(problem));
    if (variant.pack_b) measure.take(packed_b_bytes(problem));
    return measure.used();
}

void launch_gradient(CudaCall& call, const Plan& plan, Role gradient_role, Role reduce_role, const Problem& problem,
                     LoraGradientArgs args, std::int64_t width) {
    const Step& step = plan.at(gradient_role);
    if (!plan.has(reduce_role)) {
        call.launch_grid(step, step.column_tiles, problem.E, args);
        return;
    }
    const std::int64_t chunk = chunk_rows(problem, width, args.M);
    args.chunk_rows = static_cast<int>(chunk);
    call.launch(plan, step, (args.M / chunk + problem.E) * step.column_tiles, args);
    if (args.M > chunk) {
        // At most M / chunk experts have several chunks.
        const Step& reduce = plan.at(reduce_role);
        const std::int64_t pieces = (problem.R * width + reduce.tile_rows - 1) / reduce.tile_rows;
        call.launch(plan, reduce, std::min(problem.E, args.M / chunk) * pieces, args);
    }
}

void backward_lora_cuda(const Engine& engine, Stream stream, const Problem& problem, const BackwardLoraArgs& args,
                        std::int64_t T) {
    const std::int64_t M = T * problem.top_k;
    CudaCall call(engine, stream);
    Variant variant;
    variant.operation = Operation::backward_lora;
    variant.bucket = bucket_of(T);
    variant.wants_da = args.dA.given();
    variant.wants_db = args.dB.given();
    variant.needs_xa = variant.wants_db && !args.xa.given() && M > 0;
    variant.needs_yb = variant.wants_da && !args.yb.given() && M > 0;
    variant.tensor_cores = tensor_cores_fit(problem, {&args.x, &args.dy}, {&args.xa, &args.yb});
    set_packing(variant, problem, variant.needs_xa ? args.A : Tensor{}, variant.needs_yb ? args.B : Tensor{});
    const Plan& plan = call.plan(problem, variant);

    const ScratchBlock block(args.workspace, scratch_bytes(problem, M, variant), call.stream());
    Scratch scratch(block.data());
    const BackwardLoraScratch pieces = take_backward_lora(problem, M, variant, scratch);

    const GroupedProductArgs product = product_args(problem, args.routing, M);
    if (variant.needs_xa) {
        const AdapterMatrix a = adapter_a(call, plan, problem, args.A, scratch);
        launch_rank_product(call, plan, Role::xa, product, args.x, a, args.scaling, pieces.xa, problem);
    }
    if (variant.needs_yb) {
        const AdapterMatrix b = adapter_b(call, plan, problem, args.B, scratch);
        launch_rank_product(call, plan, Role::yb, product, args.dy, b, args.scaling, pieces.yb, problem);
    }

    LoraGradientArgs gradient{};
    gradient.gates = args.gates.data;
    gradient.scattered_idxs = product.scattered_idxs;
    gradient.expert_offsets = product.expert_offsets;
    gradient.partials = pieces.partials;
    gradient.M = product.M;
    if (variant.wants_da) {
        gradient.wide = args.x.data;
        gradient.wide_stride = row_stride(args.x);
        gradient.rank_rows = variant.needs_yb ? pieces.yb : args.yb.data;
        gradient.out = args.dA.data;
        gradient.out_expert_stride = args.dA.strides[0];
        gradient.out_rank_stride = args.dA.strides[1];
        gradient.out_wide_stride = args.dA.strides[2];
        launch_gradient(call, plan, Role::gradient_a, Role::reduce_a, problem, gradient, problem.K);
    }
    if (variant.wants_db) {
        gradient.wide = args.dy.data;
        gradient.wide_stride = row_stride(args.dy);
        gradient.rank_rows = variant.needs_xa ? pieces.xa : args.xa.data;
        gradient.out = args.dB.data;
        gradient.out_expert_stride = args.dB.strides[0];
        gradient.out_wide_stride = args.dB.strides[1];
        gradient.out_rank_stride = args.dB.strides[2];
        launch_gradient(call, plan, Role::gradient_b, Role::reduce_b, problem, gradient, problem.N);
    }
}

}  // namespace
}  // namespace ops

void backward_lora(const Engine& engine, Stream stream, const Problem& problem, const BackwardLoraArgs& args) {
    const std::int64_t T = ops::validate_backward_lora(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::backward_lora(engine.impl().threads, problem, args);
    } else {
        ops::backward_lora_cuda(engine, stream, problem, args, T);
    }
}

std::size_t backward_lora_workspace(const Engine& engine, const Problem& problem, std::int64_t T) {
    ops::validate_tokens(problem, T);
    if (engine.backend() == Backend::cpu || problem.R == 0) return 0;
    ops::Variant variant;
    variant.needs_xa = variant.needs_yb = variant.wants_da = variant.wants_db = true;
    variant.pack_a = variant.pack_b = true;
    return ops::scratch_bytes(problem, T * problem.top_k, variant);
}

}  // namespace smlora
