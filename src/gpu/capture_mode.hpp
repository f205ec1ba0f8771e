// Making calls that a graph capture elsewhere in the process would forbid.
#pragma once

#include <cuda.h>

namespace smlora::gpu {

/// For its lifetime the calling thread may make calls that are unsafe in a capture (loading a module, making a pool),
/// although another thread captures in global mode. They concern objects that no captured stream knows.
class RelaxedCaptureMode {
 public:
    RelaxedCaptureMode();
    ~RelaxedCaptureMode();
    RelaxedCaptureMode(const RelaxedCaptureMode&) = delete;
    RelaxedCaptureMode& operator=(const RelaxedCaptureMode&) = delete;

 private:
    CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

}  // namespace smlora::gpu
