// arrange_scales.
#include "args/arrange_scales.h"
#include "check/fail.hpp"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "engine/cuda_call.hpp"
#include "families/unpack.hpp"
#include "gpu/driver.hpp"
#include "gpu/pool.hpp"

namespace smlora {
namespace ops {
namespace {

ArrangeFindings arrange_scales_cuda(const Engine& engine, Stream stream, const ArrangeScalesArgs& args) {
    engine::CudaCall call(engine, stream);
    const plan::Plan& plan = call.plan({}, plan::ArrangeScales{families::arrange_work(args.W)});
    const gpu::StreamBuffer findings(call.stream(), sizeof(ArrangeFindings));
    SMLORA_CUDA(cuMemsetD32Async, findings.address(), 0, sizeof(ArrangeFindings) / sizeof(unsigned), call.stream());
    const families::Step& step = plan.at(plan::Role::arrange_scales);
    const std::int64_t items = args.out.shape[0] * args.out.shape[1] * args.out.shape[2] * weight::scale_block;
    call.launcher().launch(
        step, (items + step.spec.threads - 1) / step.spec.threads,
        ArrangeScalesKernelArgs{families::unpack_args(args.W, nullptr), args.out.data,
                                static_cast<ArrangeFindings*>(findings.data()), static_cast<int>(args.W.E)});
    ArrangeFindings found{};
    SMLORA_CUDA(cuStreamSynchronize, call.stream());
    SMLORA_CUDA(cuMemcpyDtoH, &found, findings.address(), sizeof found);
    return found;
}

constexpr const char* otherwise = "products unpack such weights, with their scales as they are";

/// Products fold the power of two that codes lack into the scale, and bf16 has room for 2^127.
void check_bytes(const Weight& weight, unsigned largest) {
    const unsigned most = weight.encoding == Encoding::mxfp4 ? 128 : 134;
    if (largest > most) check::fail("W.scales: expected {} or less each, got {}; {}", most, largest, otherwise);
}

void check_findings(const Weight& weight, const ArrangeFindings& found) {
    const bool fp8 = weight.encoding == Encoding::fp8;
    if (weight.encoding == Encoding::mxfp4 || weight.encoding == Encoding::mxfp8) check_bytes(weight, found.largest);
    if (found.nan_codes > 0) check::fail("W.codes: expected numbers, got NaN; {}", otherwise);
    if (found.nan_scales > 0) check::fail("W.scales: expected numbers, got NaN; {}", otherwise);
    if (found.without_split == 0) return;
    if (fp8) {
        check::fail(
            "W.scales: expected 0 or a magnitude from 2^-80 to 2^8, got others in {} blocks of 64 x 64 values; {}",
            found.without_split, otherwise);
    }
    const bool divides = weight.global_scale == GlobalScale::divisor;
    check::fail(
        "W.global_scales: expected {}a magnitude from 2^-80 to 2^80 that is the sum of two bf16 for all products "
        "with it, got others in {} blocks of 64 x 64 values; {}",
        divides ? "" : "0 or ", found.without_split, otherwise);
}

}  // namespace
}  // namespace ops

void arrange_scales(const Engine& engine, Stream stream, const ArrangeScalesArgs& args) {
    check::validate_arrange_scales(args);
    ops::check_findings(args.W, engine.backend() == Backend::cpu ? cpu::arrange_scales(engine.impl().threads, args)
                                                                 : ops::arrange_scales_cuda(engine, stream, args));
}

}  // namespace smlora
