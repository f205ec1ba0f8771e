// Keeping a context alive as long as something lives in it.
#pragma once

#include <cuda.h>

namespace smlora::gpu {

/// Retains the current context if it is its device's primary one, so that it outlives whatever is made in it. Other
/// contexts cannot be retained: they end when their owner wishes, and everything in them with them.
class PrimaryHold {
 public:
    PrimaryHold();
    ~PrimaryHold();
    PrimaryHold(const PrimaryHold&) = delete;
    PrimaryHold& operator=(const PrimaryHold&) = delete;

    /// Whether the context is certain to be there still.
    [[nodiscard]] bool holds() const noexcept { return held_; }
    [[nodiscard]] CUcontext context() const noexcept { return context_; }
    /// Never released; for what lives as long as the process.
    void keep() noexcept { kept_ = true; }

 private:
    CUcontext context_ = nullptr;
    CUdevice device_ = 0;
    bool held_ = false;
    bool kept_ = false;
};

}  // namespace smlora::gpu
