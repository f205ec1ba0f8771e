// arrange_scales.
#include "args/arrange_scales.h"
#include "check/fail.hpp"
#include "check/validate.hpp"
#include "cpu/operations.hpp"
#include "engine/cuda_call.hpp"
#include "gpu/driver.hpp"
#include "gpu/pool.hpp"

#include <cstdint>

namespace smlora {
namespace ops {
namespace {

/// 2^(128 - 127): products fold a factor of 2^126 into the scale, and bf16 has room for 2^127.
constexpr unsigned most_scale = 128;

unsigned arrange_scales_cuda(const Engine& engine, Stream stream, const ArrangeScalesArgs& args) {
    engine::CudaCall call(engine, stream);
    const plan::Plan& plan = call.plan({}, plan::ArrangeScales{format_of(args.W), args.W.rows, args.W.columns});
    const gpu::StreamBuffer largest(call.stream(), sizeof(unsigned));
    SMLORA_CUDA(cuMemsetD32Async, largest.address(), 0, 1, call.stream());
    const families::Step& step = plan.at(plan::Role::arrange_scales);
    const std::int64_t items = args.out.shape[0] * args.out.shape[1] * args.out.shape[2] * weight::scale_block;
    call.launcher().launch(step, (items + step.spec.threads - 1) / step.spec.threads,
                           ArrangeScalesKernelArgs{args.W.scales.data, args.out.data,
                                                   static_cast<unsigned*>(largest.data()), static_cast<int>(args.W.E)});
    unsigned found = 0;
    SMLORA_CUDA(cuStreamSynchronize, call.stream());
    SMLORA_CUDA(cuMemcpyDtoH, &found, largest.address(), sizeof found);
    return found;
}

}  // namespace
}  // namespace ops

void arrange_scales(const Engine& engine, Stream stream, const ArrangeScalesArgs& args) {
    check::validate_arrange_scales(args);
    const unsigned largest = engine.backend() == Backend::cpu ? cpu::arrange_scales(engine.impl().threads, args)
                                                              : ops::arrange_scales_cuda(engine, stream, args);
    if (largest > ops::most_scale) {
        check::fail(
            "W.scales: expected {} or less each, got {}; products unpack such weights, with their scales as they are",
            ops::most_scale, largest);
    }
}

}  // namespace smlora
