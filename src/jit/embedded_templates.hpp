// The kernel templates that the build put into the library; the definition is generated.
#pragma once

#include <string_view>
#include <vector>

namespace smlora::jit {

struct EmbeddedTemplate {
    std::string_view name;  ///< relative to kernel_templates/: "ptx/mma.cuh"
    std::string_view text;
};

/// Sorted by name.
[[nodiscard]] std::vector<EmbeddedTemplate> embedded_templates();

}  // namespace smlora::jit
