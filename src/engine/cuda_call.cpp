#include "engine/cuda_call.hpp"

#include "gpu/driver.hpp"
#include "plan/prewarm_command.hpp"
#include "tuning/bucket.hpp"
#include "tuning/determinism.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <vector>

namespace smlora::engine {

CudaCall::CudaCall(Engine::Impl& engine, Stream stream)
    : engine_(engine),
      context_(engine_.contexts, engine_.options.device),
      launcher_(context_.facts(), static_cast<CUstream>(stream.handle)) {}

const plan::Plan& CudaCall::plan(const Problem& problem, plan::Request request, const plan::CallRows* rows) {
    if (engine_.options.determinism == Determinism::batch)
        plan::set_bucket(request, tuning::bucket_of(tuning::batch_tokens));
    const plan::PlanKey key{problem, request, context_.handle()};
    if (const plan::Plan* known = engine_.plans.find(key)) return *known;
    // Under no lock: this may compile for seconds. Two threads may make one plan; the kernels behind it are compiled
    // once all the same.
    return engine_.plans.insert(key, make_plan(problem, request, rows));
}

plan::Plan CudaCall::make_plan(const Problem& problem, const plan::Request& request, const plan::CallRows* rows) {
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    SMLORA_CUDA(cuStreamIsCapturing, stream(), &status);
    const bool capturing = status != CU_STREAM_CAPTURE_STATUS_NONE;
    const plan::Choices choices = capturing || rows == nullptr
                                      ? engine_.chooser->known(problem, request, facts())
                                      : engine_.chooser->choose(problem, request, facts(), *rows, stream());
    plan::Plan plan = plan::make_plan(problem, request, facts(), choices);
    try {
        load(plan, capturing);
    } catch (const Error& error) {
        // Operations on a weight alone have no problem, and belong to none that prewarming could be told.
        if (error.code() != ErrorCode::jit_off || problem.E == 0) throw;
        throw Error(ErrorCode::jit_off, fmt::format("{}: `{}`", error.what(),
                                                    plan::prewarm_command(problem, request, facts().arch.name())));
    }
    return plan;
}

void CudaCall::load(plan::Plan& plan, bool capturing) {
    std::vector<families::Step*> steps;
    std::vector<const jit::KernelSpec*> specs;
    for (auto& step : plan.steps) {
        if (!step) continue;
        steps.push_back(&*step);
        specs.push_back(&step->spec);
    }
    const auto kernels = engine_.kernels.get_all(specs, facts().arch, engine_.threads, capturing);
    for (std::size_t i = 0; i < steps.size(); ++i) steps[i]->kernel = kernels[i];
}

}  // namespace smlora::engine
