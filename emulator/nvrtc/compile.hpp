// Compiling CUDA source for the emulator, with the host's compiler.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace smlora::emulator {

struct Source {
    std::string text;
    std::vector<std::pair<std::string, std::string>> headers;  ///< name, text
    std::string arch;                                          ///< "sm_90a"
};

struct Result {
    bool compiled = false;
    std::string image;
    std::string log;
};

/// Throws std::system_error if the compiler cannot be run.
[[nodiscard]] Result compile(const Source& source);

/// Of the release of NVRTC that is mimicked; the last number tells versions of the emulator apart, as kernels in a
/// cache are known by it.
struct Version {
    int major, minor;
    long build;
};
[[nodiscard]] Version version();

}  // namespace smlora::emulator
