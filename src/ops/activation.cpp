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

using ActivationDirection = families::ActivationWork::Direction;

/// What forward and backward have in common.
template <class Args>
ActivationKernelArgs kernel_args(const Args& args, std::int64_t rows) {
    ActivationKernelArgs kernel{};
    kernel.h = args.h.data;
    kernel.h_stride = families::row_stride(args.h);
    kernel.a = args.a.data;
    kernel.a_stride = families::row_stride(args.a);
    kernel.alpha = args.alpha;
    kernel.limit = args.limit;
    kernel.rows = static_cast<int>(rows);
    return kernel;
}

void launch(const Engine& engine, Stream stream, const Problem& problem, const plan::GatedActivation& request,
            const ActivationKernelArgs& kernel) {
    engine::CudaCall call(engine, stream);
    const plan::Plan& plan = call.plan(problem, request);
    call.launcher().launch_rows(plan.at(plan::Role::activation), kernel.rows, kernel);
}

void activation_cuda(const Engine& engine, Stream stream, const Problem& problem, const ActivationArgs& args,
                     std::int64_t rows) {
    const std::int64_t width = args.a.shape[1];
    if (rows == 0 || width == 0) return;
    const plan::GatedActivation request{
        .rows = {width, families::rows_aligned({&args.h, &args.a})},
        .work = {.direction = ActivationDirection::forward, .activation = args.activation, .layout = args.layout}};
    launch(engine, stream, problem, request, kernel_args(args, rows));
}

void activation_backward_cuda(const Engine& engine, Stream stream, const Problem& problem,
                              const ActivationBackwardArgs& args, std::int64_t rows) {
    const std::int64_t width = args.da.shape[1];
    if (rows == 0) return;
    // Without columns the gates still have a gradient, which is zero.
    if (width == 0 && !args.gates.given()) return;
    const plan::GatedActivation request{.rows = {width, families::rows_aligned({&args.h, &args.a, &args.da, &args.dh})},
                                        .work = {.direction = ActivationDirection::backward,
                                                 .writes_a = args.a.given(),
                                                 .gates = args.gates.given(),
                                                 .activation = args.activation,
                                                 .layout = args.layout}};
    ActivationKernelArgs kernel = kernel_args(args, rows);
    kernel.da = args.da.data;
    kernel.da_stride = families::row_stride(args.da);
    kernel.dh = args.dh.data;
    kernel.dh_stride = families::row_stride(args.dh);
    kernel.gates = args.gates.data;
    kernel.scattered_idxs = args.sorted_scattered_idxs.data;
    kernel.dgates = args.dgates.data;
    launch(engine, stream, problem, request, kernel);
}

}  // namespace
}  // namespace ops

void activation(const Engine& engine, Stream stream, const Problem& problem, const ActivationArgs& args) {
    const std::int64_t rows = check::validate_activation(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::activation(engine.impl().threads, problem, args);
    } else {
        ops::activation_cuda(engine, stream, problem, args, rows);
    }
}

void activation_backward(const Engine& engine, Stream stream, const Problem& problem,
                         const ActivationBackwardArgs& args) {
    const std::int64_t rows = check::validate_activation_backward(problem, args, engine.backend());
    if (engine.backend() == Backend::cpu) {
        cpu::activation_backward(engine.impl().threads, problem, args);
    } else {
        ops::activation_backward_cuda(engine, stream, problem, args, rows);
    }
}

}  // namespace smlora
