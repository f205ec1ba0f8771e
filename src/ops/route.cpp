// route.
#include "families/route.hpp"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "engine/cuda_call.hpp"
#include "engine/scratch.hpp"

namespace smlora {
namespace ops {
namespace {

using plan::Role;

RouteKernelArgs kernel_args(const RouteArgs& args, std::int64_t M) {
    RouteKernelArgs kernel{};
    kernel.top_idx = args.top_idx.data;
    kernel.sorted_expert_idxs = args.routing.sorted_expert_idxs.data;
    kernel.sorted_scattered_idxs = args.routing.sorted_scattered_idxs.data;
    kernel.expert_offsets = args.routing.expert_offsets.data;
    kernel.M = static_cast<int>(M);
    return kernel;
}

void route_cuda(const Engine& engine, Stream stream, const Problem& problem, const RouteArgs& args, std::int64_t T) {
    const std::int64_t M = T * problem.top_k;
    engine::CudaCall call(engine, stream);
    const plan::Plan& plan = call.plan(problem, plan::Route{args.top_idx.dtype});
    const families::Step* const small = plan.find(Role::route_small);
    if (small != nullptr && families::is_small_route(M)) {
        return families::launch_small_route(call.launcher(), *small, kernel_args(args, M));
    }
    engine::Scratch scratch;
    const engine::Scratch::Piece counts = scratch.reserve(families::route_counts_bytes(problem, M));
    scratch.allocate(args.workspace, call.stream());
    families::launch_route(call.launcher(),
                           {.count = plan.find(Role::route_count),
                            .scan = plan.find(Role::route_scan),
                            .scatter = plan.find(Role::route_scatter)},
                           problem, kernel_args(args, M), scratch.at(counts));
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
    engine::Scratch scratch;
    static_cast<void>(scratch.reserve(families::route_counts_bytes(problem, T * problem.top_k)));
    return scratch.bytes();
}

}  // namespace smlora
