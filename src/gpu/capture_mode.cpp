#include "gpu/capture_mode.hpp"

#include "gpu/driver.hpp"

namespace smlora::gpu {

// The call exchanges: afterwards mode_ is the thread's former mode.
RelaxedCaptureMode::RelaxedCaptureMode() { SMLORA_CUDA(cuThreadExchangeStreamCaptureMode, &mode_); }

RelaxedCaptureMode::~RelaxedCaptureMode() { driver().cuThreadExchangeStreamCaptureMode(&mode_); }

}  // namespace smlora::gpu
