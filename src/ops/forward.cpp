// forward and scatter2scatter.
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "ops/projection_call.hpp"

namespace smlora {
namespace ops {
namespace {

void forward_cuda(const Engine& engine, Stream stream, const Problem& problem, const ForwardArgs& args,
                  std::int64_t T) {
    if (T == 0) return;
    engine::CudaCall call(engine, stream);
    const Projection projection = projection_of(args, T);
    const auto request = request_of<plan::Forward>(problem, projection, call.unpack_limit());
    const plan::CallRows rows{args.routing, T};
    const plan::Plan& plan = call.plan(problem, request, &rows);
    const ProjectionCall product(call, plan, problem, projection, request.packing, request.unpack);
    product.launch_product();
    product.launch_sum();
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
    return ops::projection_workspace(engine, problem, T, ops::Direction::forward);
}

}  // namespace smlora
