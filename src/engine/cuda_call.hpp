// One operation on the CUDA backend while it runs: its context, plan, scratch memory and launches.
#pragma once

#include "engine/engine_impl.hpp"
#include "gpu/device.hpp"
#include "gpu/launch.hpp"
#include "plan/call_rows.hpp"
#include "plan/plan.hpp"

#include <smlora/operations.hpp>

#include <cstddef>
#include <cstdint>

namespace smlora::engine {

class CudaCall {
 public:
    CudaCall(const Engine& engine, Stream stream) : CudaCall(engine.impl(), stream) {}
    CudaCall(Engine::Impl& engine, Stream stream);

    [[nodiscard]] CUstream stream() const noexcept { return stream_; }

    [[nodiscard]] const gpu::DeviceFacts& facts() const noexcept { return context_.facts(); }

    /// The loaded plan of this call. Throws Error{not_ready} while the stream is capturing and a kernel is not loaded.
    /// With `rows` its choices may be measured, on these rows; else recorded or heuristic ones are taken.
    const plan::Plan& plan(const Problem& problem, const plan::Variant& variant, const plan::CallRows* rows = nullptr);

    /// Compiles, at once, and loads the kernels of a plan. `capturing`: throws Error{not_ready} instead.
    void load(plan::Plan& plan, bool capturing = false);

    /// Launches over `items` pieces of work that the kernel walks by itself: as many blocks as the GPU holds at once,
    /// and no more than there is work.
    template <class Args>
    void launch(const plan::Plan& plan, const plan::Step& step, std::int64_t items, const Args& args,
                gpu::Begin begin = gpu::Begin::after_earlier_work) {
        launch_items(plan, step, items, &args, sizeof(Args), begin);
    }

    /// Launches a row kernel over `rows` rows, each cut into the step's segments.
    template <class Args>
    void launch_rows(const plan::Plan& plan, plan::Role role, std::int64_t rows, const Args& args,
                     gpu::Begin begin = gpu::Begin::after_earlier_work) {
        const plan::Step& step = plan.at(role);
        launch(plan, step, (rows * step.column_tiles + step.tile_rows - 1) / step.tile_rows, args, begin);
    }

    /// Launches exactly this grid.
    template <class Args>
    void launch_grid(const plan::Step& step, std::int64_t x, std::int64_t y, const Args& args) {
        launch_exact(step, x, y, &args, sizeof(Args));
    }

 private:
    void launch_items(const plan::Plan& plan, const plan::Step& step, std::int64_t items, const void* args,
                      std::size_t bytes, gpu::Begin begin);
    void launch_exact(const plan::Step& step, std::int64_t x, std::int64_t y, const void* args, std::size_t bytes);

    Engine::Impl& engine_;
    gpu::CurrentContext context_;
    CUstream stream_;
};

}  // namespace smlora::engine
