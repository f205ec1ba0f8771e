#include "engine/cuda_call.hpp"

#include "gpu/driver.hpp"
#include "gpu/launch.hpp"

#include <algorithm>
#include <vector>

namespace smlora::engine {

CudaCall::CudaCall(Engine::Impl& engine, Stream stream)
    : engine_(engine),
      context_(engine_.contexts, engine_.options.device),
      stream_(static_cast<CUstream>(stream.handle)) {}

const plan::Plan& CudaCall::plan(const Problem& problem, const plan::Variant& variant, const plan::CallRows* rows) {
    return engine_.plans.get({problem, variant, context_.handle()}, [&] {
        CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
        SMLORA_CUDA(cuStreamIsCapturing, stream_, &status);
        const bool capturing = status != CU_STREAM_CAPTURE_STATUS_NONE;
        const plan::Choices choices = capturing || rows == nullptr
                                          ? engine_.chooser->known(problem, variant, facts())
                                          : engine_.chooser->choose(problem, variant, facts(), *rows, stream_);
        plan::Plan plan = plan::make_plan(problem, variant, facts(), choices);
        load(plan, capturing);
        return plan;
    });
}

void CudaCall::load(plan::Plan& plan, bool capturing) {
    std::vector<plan::Step*> steps;
    std::vector<const jit::KernelSpec*> specs;
    for (auto& step : plan.steps) {
        if (!step) continue;
        steps.push_back(&*step);
        specs.push_back(&step->spec);
    }
    const auto kernels = engine_.kernels.get_all(specs, facts().arch, engine_.threads, capturing);
    for (std::size_t i = 0; i < steps.size(); ++i) steps[i]->kernel = kernels[i];
    plan.multiprocessors = facts().multiprocessors;
}

void CudaCall::launch_items(const plan::Plan& plan, const plan::Step& step, std::int64_t items, const void* args,
                            std::size_t bytes, gpu::Begin begin) {
    const std::int64_t resident =
        static_cast<std::int64_t>(plan.multiprocessors) * std::max(1, step.kernel->blocks_per_multiprocessor);
    // Earlier GPUs cannot let a kernel begin during the last one.
    if (context_.facts().arch.number() < 90) begin = gpu::Begin::after_earlier_work;
    const std::int64_t cluster = step.spec.cluster;
    const std::int64_t clusters = std::clamp<std::int64_t>(items / cluster, 1, resident / cluster);
    gpu::launch(*step.kernel, static_cast<unsigned>(clusters * cluster), 1, stream_, args, bytes, begin);
}

void CudaCall::launch_exact(const plan::Step& step, std::int64_t x, std::int64_t y, const void* args,
                            std::size_t bytes) {
    gpu::launch(*step.kernel, static_cast<unsigned>(x), static_cast<unsigned>(y), stream_, args, bytes);
}

}  // namespace smlora::engine
