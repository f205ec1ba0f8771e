// Finding the NVRTC that would be opened, and naming its content, without opening it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace smlora::jit {

/// libnvrtc.so.13, then libnvrtc.so.12: the names that are looked for, in this order.
[[nodiscard]] const std::vector<std::string>& nvrtc_library_names();

/// Folders that are searched: LD_LIBRARY_PATH, CUDA_HOME and CUDA_PATH (lib64 and lib), those of set_nvrtc_folders()
/// (smlora/system.hpp), /usr/local/cuda, and where distributions put libraries. They are searched before the dynamic
/// loader is asked, so that every process of one environment finds the same NVRTC, whatever else it has loaded; the
/// loader is the last resort.
[[nodiscard]] std::vector<std::filesystem::path> nvrtc_folders();

struct NvrtcSearch {
    /// Best first: all names are looked for in a folder before the next folder, so that a folder which the user names
    /// goes before a later release elsewhere.
    std::vector<std::filesystem::path> found;
    std::vector<std::string> refused;  ///< and why: a sentence for each, see library_trust.hpp
};

[[nodiscard]] NvrtcSearch search_nvrtc(const std::vector<std::filesystem::path>& folders = nvrtc_folders());

/// What tells this library from any other: "build-id:<hex>", which its linker made from its content, or, for a library
/// without one, "file:<hash of path, size and time of last change>". Nothing if it cannot be read.
[[nodiscard]] std::optional<std::string> library_identity(const std::filesystem::path& library);

}  // namespace smlora::jit
