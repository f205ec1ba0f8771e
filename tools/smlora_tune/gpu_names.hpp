// GPUs by the names that people give them.
#pragma once

#include "gpu/device.hpp"

#include <string>
#include <vector>

namespace smlora::tool {

/// The GPUs of this machine; none without a driver.
[[nodiscard]] std::vector<gpu::DeviceFacts> gpus_here();

/// The driver's name of a GPU that is here or known: `text` itself, else the only name that holds its words ("h200",
/// "H100 80GB"), whatever their case. Throws UsageError when none or several do.
[[nodiscard]] std::string full_gpu_name(const std::string& text, const std::vector<gpu::DeviceFacts>& here);

}  // namespace smlora::tool
