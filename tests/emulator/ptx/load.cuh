// The emulated counterpart of kernel_templates/ptx/load.cuh.
#pragma once

#include "types.cuh"

namespace smlora::ptx {

__device__ __forceinline__ Vec16 load_once(const void* address) { return *static_cast<const Vec16*>(address); }

}  // namespace smlora::ptx
