// One operation on the CUDA backend while it runs: its context, its plan and what launches it.
#pragma once

#include "engine/engine_impl.hpp"
#include "families/launcher.hpp"
#include "gpu/device.hpp"
#include "plan/call_rows.hpp"
#include "plan/plan.hpp"

#include <smlora/engine.hpp>
#include <smlora/problem.hpp>

#include <cuda.h>

#include <cstdint>

namespace smlora::engine {

class CudaCall {
 public:
    CudaCall(const Engine& engine, Stream stream) : CudaCall(engine.impl(), stream) {}
    CudaCall(Engine::Impl& engine, Stream stream);

    [[nodiscard]] const gpu::DeviceFacts& facts() const noexcept { return context_.facts(); }
    [[nodiscard]] CUstream stream() const noexcept { return launcher_.stream(); }
    [[nodiscard]] const families::Launcher& launcher() const noexcept { return launcher_; }
    [[nodiscard]] std::uint64_t unpack_limit() const noexcept { return engine_.unpack_limit; }

    /// The loaded plan of this call. Throws Error{not_ready} while the stream is capturing and a kernel is not loaded.
    /// With `rows` its choices may be measured, on these rows; else recorded or heuristic ones are taken.
    const plan::Plan& plan(const Problem& problem, plan::Request request, const plan::CallRows* rows = nullptr);

    /// Compiles, at once, and loads the kernels of a plan. `capturing`: throws Error{not_ready} instead.
    void load(plan::Plan& plan, bool capturing = false);

 private:
    plan::Plan make_plan(const Problem& problem, const plan::Request& request, const plan::CallRows* rows);

    Engine::Impl& engine_;
    gpu::CurrentContext context_;
    families::Launcher launcher_;
};

}  // namespace smlora::engine
