// backward_input: dX, and the gates' gradient on the way.
#include "args/gate_gradient.h"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "families/tensor_layout.hpp"
#include "ops/projection_call.hpp"

namespace smlora {
namespace ops {
namespace {

/// dgates, from the rows of the product before their gate.
GateGradientArgs gate_gradient(const BackwardInputArgs& args, const GroupedProductArgs& product) {
    GateGradientArgs gradient{};
    gradient.left = product.out;
    gradient.left_stride = product.out_stride;
    gradient.right = args.x.data;
    gradient.right_stride = families::row_stride(args.x);
    gradient.bias_rows = args.dy.data;
    gradient.bias_rows_stride = families::row_stride(args.dy);
    gradient.bias = args.bias.data;
    gradient.gates = args.gates.data;
    gradient.scattered_idxs = product.scattered_idxs;
    gradient.expert_offsets = product.expert_offsets;
    gradient.dgates = args.dgates.data;
    gradient.M = product.M;
    return gradient;
}

void backward_input_cuda(const Engine& engine, Stream stream, const Problem& problem, const BackwardInputArgs& args,
                         std::int64_t T) {
    if (T == 0) return;
    engine::CudaCall call(engine, stream);
    const Projection projection = projection_of(args, T);
    auto request = request_of<plan::BackwardInput>(problem, projection, call.unpack_limit());
    using Gates = plan::BackwardInput::Gates;
    if (args.before_gates) request.gates = Gates::left_out;
    if (args.dgates.given()) {
        request.gates = Gates::differentiated;
        request.vector_rows = request.vector_rows && families::rows_aligned({&args.x});
        request.vector_bias = problem.bias && families::rows_aligned({&args.dy, &args.bias});
    }
    const plan::CallRows rows{args.routing, T};
    const plan::Plan& plan = call.plan(problem, request, &rows);
    const ProjectionCall product(call, plan, problem, projection, request.packing, request.unpack);
    const GroupedProductArgs made = product.launch_product();
    if (const families::Step* step = plan.find(plan::Role::gate_gradient)) {
        call.launcher().launch_rows(*step, made.M, gate_gradient(args, made));
    }
    product.launch_sum();
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
    return ops::projection_workspace(engine, problem, T, ops::Direction::backward);
}

}  // namespace smlora
