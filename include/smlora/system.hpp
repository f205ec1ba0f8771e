// What this machine offers: GPUs, driver, NVRTC. Never throws for something that is missing; it says so.
#pragma once

#include <smlora/export.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace smlora {

/// A GPU that the driver knows.
struct DeviceInfo {
    int ordinal = 0;                           ///< CUDA's number of it
    std::string name;                          ///< the driver's; tuning records go by it
    std::string arch;                          ///< what kernels are compiled for: "sm_90a"
    int multiprocessors = 0;                   ///< that run blocks
    std::uint64_t memory_bytes = 0;            ///< in all, not what is free
    std::uint64_t l2_bytes = 0;                ///< of its L2 cache
    std::uint64_t shared_bytes_per_block = 0;  ///< the opt-in maximum
};

/// What was found.
struct SystemInfo {
    std::string smlora_version;       ///< "0.1.0"
    bool driver_found = false;        ///< libcuda could be opened
    int driver_version = 0;           ///< as CUDA encodes it: 13000 is 13.0
    std::string driver_error;         ///< why there is none: what was looked for and what came
    std::vector<DeviceInfo> devices;  ///< by ordinal
    bool nvrtc_found = false;         ///< NVRTC could be opened
    std::string nvrtc_version;        ///< with the build number: "13.0.88"
    std::string nvrtc_library;        ///< the name or path that was opened
    std::string nvrtc_error;          ///< why there is none
    std::vector<std::string> archs;   ///< those that the templates support and this NVRTC can compile for
};

/// Opens driver and NVRTC if they are there.
[[nodiscard]] SMLORA_API SystemInfo system_info();

/// Names folders in which NVRTC (libnvrtc.so.13 or .12) is looked for: after those of the environment variables
/// LD_LIBRARY_PATH, CUDA_HOME and CUDA_PATH, before those of the system. Replaces what an earlier call named. For the
/// whole process; call it before anything is compiled, as an NVRTC that is open stays. Folders need not exist.
/// Thread-safe. Throws Error{invalid_argument} for a relative path.
SMLORA_API void set_nvrtc_folders(std::vector<std::filesystem::path> folders);

}  // namespace smlora
