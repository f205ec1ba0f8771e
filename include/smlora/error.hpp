// The one exception type of the library.
#pragma once

#include <smlora/export.hpp>

#include <stdexcept>
#include <string>

namespace smlora {

/// What went wrong, coarse enough to branch on; the message carries the argument, its value and what was expected.
enum class ErrorCode : int {
    invalid_argument = 1,  ///< an argument is wrong; the message names it
    unsupported = 2,       ///< a valid request that this backend, device or build cannot serve
    no_device = 3,         ///< no CUDA driver, no GPU, or no such device
    cuda = 4,              ///< a CUDA driver call failed; the message has the call and the error's name
    compile = 5,           ///< NVRTC is missing or refused a kernel; the message has its log
    io = 6,                ///< a file or folder that the user named cannot be used
    not_ready = 7,         ///< a kernel is needed inside a graph capture but was never loaded: warm up first
    internal = 8,          ///< a bug in smlora
    jit_off = 10,          ///< a kernel is in no layer of the cache and SMLORA_JIT=off; the message has the command
    forked = 11,           ///< the engine was made before this process was forked: make one in the child
};

/// Thrown by every public function. Nothing is launched and nothing half-written when it is thrown for an argument.
class SMLORA_API Error : public std::runtime_error {
 public:
    /// `message` as what() gives it.
    Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
    /// What to branch on.
    [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
    ErrorCode code_;
};

}  // namespace smlora
