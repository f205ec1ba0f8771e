// activation and activation_backward.
#include <smlora/activation.hpp>

#include "args/activation.h"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "engine/cuda_call.hpp"
#include "families/tensor_layout.hpp"

namespace smlora {
namespace ops {
namespace {

using Direction = families::ActivationWork::Direction;

/// `da` and `dh` are given backward; `a` forward, and backward if it is wanted.
template <class Args>
void activation_cuda(const Engine& engine, Stream stream, const Problem& problem, const Args& args, const Tensor& da,
                     const Tensor& dh, std::int64_t rows, std::int64_t width) {
    if (rows == 0 || width == 0) return;
    engine::CudaCall call(engine, stream);
    const plan::Plan& plan = call.plan(
        problem, plan::GatedActivation{.rows = {width, families::rows_aligned({&args.h, &args.a, &da, &dh})},
                                       .work = {.direction = dh.given() ? Direction::backward : Direction::forward,
                                                .writes_a = args.a.given(),
                                                .activation = args.activation,
                                                .layout = args.layout}});
    ActivationKernelArgs kernel{};
    kernel.h = args.h.data;
    kernel.h_stride = families::row_stride(args.h);
    kernel.da = da.data;
    kernel.da_stride = families::row_stride(da);
    kernel.a = args.a.data;
    kernel.a_stride = families::row_stride(args.a);
    kernel.dh = dh.data;
    kernel.dh_stride = families::row_stride(dh);
    kernel.alpha = args.alpha;
    kernel.limit = args.limit;
    kernel.rows = static_cast<int>(rows);
    call.launcher().launch_rows(plan.at(plan::Role::activation), rows, kernel);
}

}  // namespace
}  // namespace ops

void activation(const Engine& engine, Stream stream, const Problem& problem, const ActivationArgs& args) {
    const std::int64_t rows = check::validate_activation(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::activation(engine.impl().threads, problem, args);
    } else {
        ops::activation_cuda(engine, stream, problem, args, {}, {}, rows, args.a.shape[1]);
    }
}

void activation_backward(const Engine& engine, Stream stream, const Problem& problem,
                         const ActivationBackwardArgs& args) {
    const std::int64_t rows = check::validate_activation_backward(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::activation_backward(engine.impl().threads, problem, args);
    } else {
        ops::activation_cuda(engine, stream, problem, args, args.da, args.dh, rows, args.da.shape[1]);
    }
}

}  // namespace smlora
