// Machine code loaded into a context.
#pragma once

#include "gpu/primary_hold.hpp"

#include <cuda.h>

#include <string>
#include <vector>

namespace smlora::gpu {

/// The modules of one context, the one that is current when this is made. Not thread-safe.
///
/// They are unloaded at the end if the context is a primary one, which is held until then. In any other context they
/// are left to it, as it may be gone.
class Modules {
 public:
    Modules() = default;
    ~Modules();
    Modules(const Modules&) = delete;
    Modules& operator=(const Modules&) = delete;

    /// Loads `image` and finds the kernel `symbol` in it. Returns what the driver says; throws nothing. The context
    /// must be current.
    CUresult load(const std::string& image, const std::string& symbol, CUfunction& function);

    /// Unloads what load() loaded last. The context must be current.
    void unload_last();

 private:
    PrimaryHold hold_;
    std::vector<CUmodule> modules_;
};

/// Whether a result of load() means that the driver cannot use this image, rather than that something else went wrong.
[[nodiscard]] bool is_refusal(CUresult result);

}  // namespace smlora::gpu
