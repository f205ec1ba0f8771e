// Launching a loaded kernel.
#pragma once

#include "gpu/loaded_kernel.hpp"

#include <cuda.h>

#include <cstddef>
#include <type_traits>

namespace smlora::gpu {

/// When a launch may begin.
enum class Begin : bool {
    after_earlier_work,  ///< once everything before it on the stream is done
    during_last_kernel,  ///< once the blocks of the kernel before it allow it; it waits for that kernel's writes itself
};

/// Launches grid_x x grid_y blocks on `stream`. `args` is the kernel's one parameter, a plain struct that is copied
/// before this returns. Nothing is launched when a dimension of the grid is 0. Throws Error{internal} if the kernel was
/// compiled for parameters of another size, Error{cuda} if the launch fails.
void launch(const LoadedKernel& kernel, unsigned grid_x, unsigned grid_y, CUstream stream, const void* args,
            std::size_t args_bytes, Begin begin = Begin::after_earlier_work);

/// The same for the struct itself.
template <class Args>
void launch(const LoadedKernel& kernel, unsigned grid_x, unsigned grid_y, CUstream stream, const Args& args) {
    static_assert(std::is_trivially_copyable_v<Args>, "a kernel's parameters are copied byte by byte");
    static_assert(!std::is_pointer_v<Args>, "a kernel's parameter is the struct, not its address");
    launch(kernel, grid_x, grid_y, stream, &args, sizeof(Args));
}

}  // namespace smlora::gpu
