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
std::int64_t chunk_rows(const Problem& problem, std::int64_t M) {
    constexpr std::int64_t least = 256;          // below it, adding the pieces up costs more than it spreads
    constexpr std::int64_t blocks_wanted = 512;  // a few for each multiprocessor of the largest GPUs
    constexpr std::int64_t partials_limit = std::int64_t{512} << 20;  // bytes
    const std::int64_t width = problem.K + problem.N;
    const std::int64_t column_tiles = (width + 127) / 128;
    const std::int64_t even = 2 * M / problem.E;
    const std::int64_t spread = M * column_tiles / blocks_wanted;
    const std::int64_t fitting = 2 * M * problem.R * width * 4 / partials_limit;
    return std::max({least, std::min(even, spread), fitting});
}

/// Slots for the pieces: an expert with several has at most 2 rows / chunk of them.
std::int64_t partials_bytes(const Problem& problem, std::int64_t width, std::int64_t M) {
    return 2 * M / chunk_rows(problem, M) * problem.R * width * 4;
}

struct BackwardLoraScratch {
    void* xa = nullptr;
    void* yb = nullptr;
    void* partials_a = nullptr;
    void* partials_b = nullptr;
};

/// The pieces that do not depend on the adapter's strides; those of the packed adapter follow.
BackwardLoraScratch take_backward_lora(const Problem& problem, std::int64_t M, const Variant& variant,
                                       Scratch& scratch) {
    BackwardLoraScratch pieces;
    if (variant.needs_xa) pieces.xa = scratch.take(rank_rows_bytes(problem, M));
    if (variant.needs_yb) pieces.yb = scratch.take(rank_rows_bytes(problem, M));
    if (variant.tensor_cores && variant.wants_da) {
        pieces.partials_a = scratch.take(partials_bytes(problem, problem.K, M));
    }
    if (variant.tensor_cores && variant.wants_db) {
        pieces.partials_b = scratch.take(partials_bytes(problem, problem.N, M));
    }
    return pieces;
}

std::size_t scratch_bytes(const Problem& problem, std::int64_t M, const Variant& variant) {
    Scratch measure;
    take_backward_lora(problem, M, variant, measure);
    if (variant.pack_a) measure.take(packed_a_bytes(problem));
    if (variant.pack_b) measure.take(packed_b_bytes(problem));
    return measure.used();
}

/// Both gradients; a side that is not wanted has no output.
void launch_gradients(CudaCall& call, const Plan& plan, const Problem& problem, LoraGradientPair pair) {
    if (plan.has(Role::gradient_a)) {
        const Step& step = plan.at(Role::gradient_a);
        call.launch_grid(step, step.column_tiles, problem.E, pair.a);
    }
    if (plan.has(Role::gradient_b)) {
        const Step& step = plan.at(Role::gradient_b);
        call.launch_grid(step, step.column_tiles, problem.E, pair.b);
    }
    if (!plan.has(Role::gradients)) return;
    const std::int64_t M = pair.a.M;
    const std::int64_t chunk = chunk_rows(problem, M);
    pair.a.chunk_rows = pair.b.chunk_rows = static_cast<int>(chunk);
    const Step& step = plan.at(Role::gradients);
    call.launch(plan, step, (M / chunk + problem.E) * step.column_tiles, pair);
    if (M > chunk) {
        // At most M / chunk experts have several chunks.
        const Step& reduce = plan.at(Role::reduce);
        const std::int64_t pieces = (problem.R * (problem.K + problem.N)) / reduce.tile_rows + 2;
        call.launch(plan, reduce, std::min(problem.E, M / chunk) * pieces, pair, gpu::Begin::during_last_kernel);
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

    LoraGradientPair pair{};
    for (LoraGradientArgs* const side : {&pair.a, &pair.b}) {
        side->gates = args.gates.data;
        side->scattered_idxs = product.scattered_idxs;
        side->expert_offsets = product.expert_offsets;
        side->M = product.M;
    }
    if (variant.wants_da) {
        pair.a.wide = args.x.data;
        pair.a.wide_stride = row_stride(args.x);
        pair.a.rank_rows = variant.needs_yb ? pieces.yb : args.yb.data;
        pair.a.partials = pieces.partials_a;
        pair.a.out = args.dA.data;
        pair.a.out_expert_stride = args.dA.strides[0];
        pair.a.out_rank_stride = args.dA.strides[1];
        pair.a.out_wide_stride = args.dA.strides[2];
    }
    if (variant.wants_db) {
        pair.b.wide = args.dy.data;
        pair.b.wide_stride = row_stride(args.dy);
        pair.b.rank_rows = variant.needs_xa ? pieces.xa : args.xa.data;
        pair.b.partials = pieces.partials_b;
        pair.b.out = args.dB.data;
        pair.b.out_expert_stride = args.dB.strides[0];
        pair.b.out_wide_stride = args.dB.strides[1];
        pair.b.out_rank_stride = args.dB.strides[2];
    }
    launch_gradients(call, plan, problem, pair);
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
    variant.tensor_cores = true;
    variant.pack_a = variant.pack_b = true;
    return ops::scratch_bytes(problem, T * problem.top_k, variant);
}

}  // namespace smlora
