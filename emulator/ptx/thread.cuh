// Which thread this is, where it is asked for.
#pragma once

namespace smlora::ptx {

__device__ __forceinline__ int thread_here() { return static_cast<int>(threadIdx.x); }

}  // namespace smlora::ptx
