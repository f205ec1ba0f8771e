// activation and activation_backward.
#include <smlora/activation.hpp>

#include "args/activation.h"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "families/projection.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

namespace smlora {
namespace ops {
namespace {

std::int64_t stride_or_zero(const Tensor& rows) { return rows.given() ? families::row_stride(rows) : 0; }

/// `da` and `dh` are given backward; `a` forward, and backward if it is wanted.
template <class Args>
void activation_cuda(const Engine& engine, Stream stream, const Problem& problem, const Args& args, const Tensor& da,
                     const Tensor& dh, std::int64_t rows, std::int64_t width) {
    if (rows == 0 || width == 0) return;
    engine::CudaCall call(engine, stream);
    plan::Variant variant;
    variant.operation = dh.given() ? plan::Operation::activation_backward : plan::Operation::activation;
    variant.vector_rows = families::rows_aligned({&args.h, &args.a, &da, &dh});
    variant.wants_a = args.a.given();
    variant.width = width;
    variant.activation = args.activation;
    variant.gate_layout = args.layout;
    const plan::Plan& plan = call.plan(problem, variant);
    const ActivationKernelArgs kernel{args.h.data,
                                      families::row_stride(args.h),
                                      da.data,
                                      stride_or_zero(da),
                                      args.a.data,
                                      stride_or_zero(args.a),
                                      dh.data,
                                      stride_or_zero(dh),
                                      args.alpha,
                                      args.limit,
                                      static_cast<int>(rows)};
    call.launch_rows(plan, plan::Role::activation, rows, kernel);
}

}  // namespace
}  // namespace ops

std::string_view name(Activation activation) {
    switch (activation) {
        case Activation::swiglu:
            return "swiglu";
        case Activation::geglu:
            return "geglu";
        case Activation::geglu_tanh:
            return "geglu_tanh";
        case Activation::reglu:
            return "reglu";
        case Activation::swiglu_clamped:
            return "swiglu_clamped";
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("activation: expected 0 to 4, got {}", static_cast<std::int32_t>(activation)));
}

std::string_view name(GateLayout layout) {
    switch (layout) {
        case GateLayout::halves:
            return "halves";
        case GateLayout::interleaved:
            return "interleaved";
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("gate layout: expected 0 or 1, got {}", static_cast<std::int32_t>(layout)));
}

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
