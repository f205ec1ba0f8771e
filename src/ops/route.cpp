// route.
#include "args/route.h"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "engine/cuda_call.hpp"
#include "engine/scratch.hpp"
#include "families/row_steps.hpp"

#include <algorithm>

namespace smlora {
namespace ops {
namespace {

/// Blocks of route_count and route_scatter, and the entries that each takes: enough blocks to fill a GPU, and no
/// block so small that its table of counts costs more than its entries.
struct RouteCut {
    std::int64_t chunk;
    std::int64_t blocks;
};

RouteCut cut(std::int64_t M) {
    constexpr std::int64_t blocks_wanted = 264;  // two for each multiprocessor of an H200
    constexpr std::int64_t threads = 256;
    const std::int64_t even = (M + blocks_wanted - 1) / blocks_wanted;
    const std::int64_t chunk = std::max<std::int64_t>(2048, (even + threads - 1) / threads * threads);
    return {chunk, std::max<std::int64_t>(1, (M + chunk - 1) / chunk)};
}

std::size_t counts_bytes(const Problem& problem, std::int64_t M) {
    engine::Scratch measure;
    measure.take((cut(M).blocks + 1) * families::route_columns(problem) * 4);
    return measure.used();
}

void route_cuda(const Engine& engine, Stream stream, const Problem& problem, const RouteArgs& args, std::int64_t T) {
    const std::int64_t M = T * problem.top_k;
    engine::CudaCall call(engine, stream);
    plan::Variant variant;
    variant.operation = plan::Operation::route;
    variant.input_index = args.top_idx.dtype;
    const plan::Plan& plan = call.plan(problem, variant);

    RouteKernelArgs kernel_args{};
    kernel_args.top_idx = args.top_idx.data;
    kernel_args.sorted_expert_idxs = args.routing.sorted_expert_idxs.data;
    kernel_args.sorted_scattered_idxs = args.routing.sorted_scattered_idxs.data;
    kernel_args.expert_offsets = args.routing.expert_offsets.data;
    kernel_args.M = static_cast<int>(M);
    if (plan.has(plan::Role::route_small) && M <= families::route_small_capacity) {
        call.launch_grid(plan.at(plan::Role::route_small), 1, 1, kernel_args);
        return;
    }
    const engine::ScratchBlock block(args.workspace, counts_bytes(problem, M), call.stream());
    const RouteCut pieces = cut(M);
    kernel_args.counts = static_cast<int*>(block.data());
    kernel_args.blocks = static_cast<int>(pieces.blocks);
    kernel_args.chunk = static_cast<int>(pieces.chunk);
    call.launch_grid(plan.at(plan::Role::route_count), pieces.blocks, 1, kernel_args);
    call.launch_grid(plan.at(plan::Role::route_scan), families::route_columns(problem) / 32, 1, kernel_args);
    call.launch_grid(plan.at(plan::Role::route_scatter), pieces.blocks, 1, kernel_args);
}

}  // namespace
}  // namespace ops

void route(const Engine& engine, Stream stream, const Problem& problem, const RouteArgs& args) {
    const std::int64_t T = check::validate_route(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::route(engine.impl().threads, problem, args);
    } else {
        ops::route_cuda(engine, stream, problem, args, T);
    }
}

std::size_t route_workspace(const Engine& engine, const Problem& problem, std::int64_t T) {
    check::validate_tokens(problem, T);
    if (engine.backend() == Backend::cpu) return 0;
    return ops::counts_bytes(problem, T * problem.top_k);
}

}  // namespace smlora
