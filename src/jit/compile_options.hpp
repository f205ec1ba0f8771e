// The options that every kernel is compiled with.
#pragma once

#include "gpu/arch.hpp"
#include "jit/compiler_version.hpp"

#include <string>
#include <vector>

namespace smlora::jit {

/// One option an item. They depend on the target and the compiler alone, never on the machine, because they are part of
/// a kernel's key.
[[nodiscard]] std::vector<std::string> compile_options(const gpu::Arch& arch, const CompilerVersion& compiler);

}  // namespace smlora::jit
