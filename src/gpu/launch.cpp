#include "gpu/launch.hpp"

#include "gpu/driver.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <array>

namespace smlora::gpu {

void launch(const LoadedKernel& kernel, unsigned grid_x, unsigned grid_y, CUstream stream, const void* args,
            std::size_t args_bytes, Begin begin) {
    // The driver copies as many bytes as the kernel was compiled for, whatever lies behind `args`.
    if (args_bytes != kernel.args_bytes) {
        throw Error(ErrorCode::internal, fmt::format("a kernel with {} bytes of parameters was launched with {}",
                                                     kernel.args_bytes, args_bytes));
    }
    if (grid_x == 0 || grid_y == 0) {
        return;
    }
    std::array<void*, 1> parameters = {const_cast<void*>(args)};
    CUlaunchAttribute overlap{};
    overlap.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    overlap.value.programmaticStreamSerializationAllowed = 1;
    CUlaunchConfig config{};
    config.gridDimX = grid_x;
    config.gridDimY = grid_y;
    config.gridDimZ = 1;
    config.blockDimX = kernel.threads;
    config.blockDimY = 1;
    config.blockDimZ = 1;
    config.sharedMemBytes = kernel.dynamic_shared;
    config.hStream = stream;
    config.attrs = &overlap;
    config.numAttrs = begin == Begin::during_last_kernel ? 1 : 0;
    SMLORA_CUDA(cuLaunchKernelEx, &config, static_cast<CUfunction>(kernel.function), parameters.data(), nullptr);
}

}  // namespace smlora::gpu
