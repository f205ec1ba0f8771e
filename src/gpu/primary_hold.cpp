#include "gpu/primary_hold.hpp"

#include "gpu/driver.hpp"

namespace smlora::gpu {

PrimaryHold::PrimaryHold() {
    SMLORA_CUDA(cuCtxGetCurrent, &context_);
    SMLORA_CUDA(cuCtxGetDevice, &device_);
    // Asked first, because retaining an unused primary context would create it, with hundreds of megabytes.
    unsigned flags = 0;
    int active = 0;
    SMLORA_CUDA(cuDevicePrimaryCtxGetState, device_, &flags, &active);
    if (active == 0) {
        return;
    }
    CUcontext primary = nullptr;
    SMLORA_CUDA(cuDevicePrimaryCtxRetain, &primary, device_);
    held_ = primary == context_;
    if (!held_) {
        driver().cuDevicePrimaryCtxRelease(device_);
    }
}

PrimaryHold::~PrimaryHold() {
    if (held_ && !kept_) {
        driver().cuDevicePrimaryCtxRelease(device_);
    }
}

}  // namespace smlora::gpu
