// dequantize.
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "engine/cuda_call.hpp"
#include "families/unpack.hpp"

namespace smlora {
namespace ops {
namespace {

void dequantize_cuda(const Engine& engine, Stream stream, const Weight& weight, const Tensor& out) {
    engine::CudaCall call(engine, stream);
    // Of a problem, this depends on the type alone.
    Problem problem;
    problem.dtype = out.dtype;
    const plan::Plan& plan = call.plan(problem, plan::Dequantize{families::unpack_work(weight, out.data, out.dtype)});
    families::launch_unpack(call.launcher(), plan.at(plan::Role::unpack), families::unpack_args(weight, out.data));
}

}  // namespace
}  // namespace ops

void dequantize(const Engine& engine, Stream stream, const DequantizeArgs& args) {
    check::validate_dequantize(args);
    if (engine.backend() == Backend::cpu) {
        cpu::dequantize(engine.impl().threads, args);
    } else {
        ops::dequantize_cuda(engine, stream, args.W, args.out);
    }
}

}  // namespace smlora
