#include "gpu/launch.hpp"

#include "gpu/driver.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <array>

namespace smlora::gpu {

void launch(const jit::LoadedKernel& kernel, unsigned grid_x, unsigned grid_y, CUstream stream, const void* args,
            std::size_t args_bytes) {
    // The driver copies as many bytes as the kernel was compiled for, whatever lies behind `args`.
    if (args_bytes != kernel.args_bytes) {
        throw Error(ErrorCode::internal, fmt::format("a kernel with {} bytes of parameters was launched with {}",
                                                     kernel.args_bytes, args_bytes));
    }
    if (grid_x == 0 || grid_y == 0) {
        return;
    }
    std::array<void*, 1> parameters = {const_cast<void*>(args)};
    SMLORA_CUDA(cuLaunchKernel, static_cast<CUfunction>(kernel.function), grid_x, grid_y, 1, kernel.threads, 1, 1,
                kernel.dynamic_shared, stream, parameters.data(), nullptr);
}

}  // namespace smlora::gpu
