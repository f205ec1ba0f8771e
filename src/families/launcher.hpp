// Launches steps on a stream.
#pragma once

#include "families/step.hpp"
#include "gpu/device.hpp"
#include "gpu/launch.hpp"

#include <cuda.h>

#include <cstddef>
#include <cstdint>

namespace smlora::families {

/// In the context that is current, whose device has these facts; they must outlive it.
class Launcher {
 public:
    Launcher(const gpu::DeviceFacts& facts, CUstream stream) : facts_(facts), stream_(stream) {}

    [[nodiscard]] const gpu::DeviceFacts& facts() const noexcept { return facts_; }
    [[nodiscard]] CUstream stream() const noexcept { return stream_; }

    /// Blocks of a step that the GPU holds at once.
    [[nodiscard]] std::int64_t resident(const Step& step) const;

    /// Launches a kernel that walks over `items` items by itself: as many blocks as the GPU holds at once, and no more
    /// than there are items.
    template <class Args>
    void launch(const Step& step, std::int64_t items, const Args& args,
                gpu::Begin begin = gpu::Begin::after_earlier_work) const {
        launch_items(step, items, &args, sizeof(Args), begin);
    }

    /// Launches a row kernel over `rows` rows, each cut into the step's segments.
    template <class Args>
    void launch_rows(const Step& step, std::int64_t rows, const Args& args,
                     gpu::Begin begin = gpu::Begin::after_earlier_work) const {
        launch(step, (rows * step.column_tiles + step.tile_rows - 1) / step.tile_rows, args, begin);
    }

    /// Launches exactly this grid.
    template <class Args>
    void launch_grid(const Step& step, std::int64_t x, std::int64_t y, const Args& args) const {
        gpu::launch(*step.kernel, static_cast<unsigned>(x), static_cast<unsigned>(y), stream_, args);
    }

 private:
    void launch_items(const Step& step, std::int64_t items, const void* args, std::size_t bytes,
                      gpu::Begin begin) const;

    const gpu::DeviceFacts& facts_;
    CUstream stream_;
};

}  // namespace smlora::families
