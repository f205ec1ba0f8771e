// What a measurement holds for.
#pragma once

#include <string>

namespace smlora::tuning {

struct Environment {
    std::string gpu;  ///< the driver's name of it: "NVIDIA H200"
    std::string arch;
    int multiprocessors = 0;
    std::string driver;     ///< the CUDA version that it is for, "13.0"; empty: not known
    std::string compiler;   ///< NVRTC's version, "13.0.88"; empty: not known
    std::string templates;  ///< digest of the kernel templates that the candidates are made from

    friend bool operator==(const Environment&, const Environment&) = default;
};

/// Why what was measured in `recorded` says nothing of `present`; empty when it does. GPU, architecture, number of
/// multiprocessors and templates must be the same, the compiler's major and minor version and the driver's major one:
/// machine code changes with ptxas, which changes with minor releases, and not with the driver. What either side does
/// not know is no difference.
[[nodiscard]] std::string mismatch(const Environment& recorded, const Environment& present);

}  // namespace smlora::tuning
