// The GPUs that are known by name, here or not.
#pragma once

#include <string_view>
#include <vector>

namespace smlora::gpu {

/// The names that facts_of takes.
[[nodiscard]] std::vector<std::string_view> known_gpus();

}  // namespace smlora::gpu
