// What a launch needs of a compiled kernel.
#pragma once

namespace smlora::gpu {

/// A kernel on the GPU, ready to be launched. Lives as long as the library that made it.
struct LoadedKernel {
    void* function = nullptr;  ///< CUfunction
    unsigned threads = 0;
    unsigned dynamic_shared = 0;
    unsigned args_bytes = 0;            ///< size of the parameter struct that the kernel was compiled for
    int blocks_per_multiprocessor = 0;  ///< resident ones, from the occupancy calculator
};

}  // namespace smlora::gpu
