// The source line of an address in a kernel.
#pragma once

#include "runtime/kernel.hpp"

#include <string>

namespace smlora::emulator {

/// "file:line" of the call that returns to `code`, by asking addr2line; the offset if it does not know.
[[nodiscard]] std::string source_line(const Code& kernels, const void* code);

}  // namespace smlora::emulator
