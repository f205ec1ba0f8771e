// The few things in CUDA source that a C++ compiler cannot be told by macros.
#pragma once

#include <string>
#include <vector>

namespace smlora::emulator {

/// Replaces declarations of shared memory, which each block has its own of:
///     extern __shared__ __align__(128) unsigned char shared[];   by a pointer of the same name, from the runtime
///     __shared__ float tile[16][TILE + 1];                       by a reference of the same name, from the runtime
/// Lines stay where they are.
[[nodiscard]] std::string rewrite_shared(const std::string& source);

struct KernelDeclaration {
    std::string name;
    std::string most_threads = "1024";  ///< of __launch_bounds__
    std::string cluster = "0, 0, 0";    ///< of __cluster_dims__
};

/// The kernels that a source defines.
[[nodiscard]] std::vector<KernelDeclaration> kernels_of(const std::string& source);

}  // namespace smlora::emulator
