// A small kernel family for tests of the compiler.
#pragma once

#include "jit/kernel_spec.hpp"
#include "temporary_folder.hpp"

#include <string>

namespace smlora::test {

/// scale.cuh, which includes ptx/lane.cuh (by its name from the root), which includes math.cuh beside it.
inline void write_sample_templates(const TemporaryFolder& folder) {
    folder.write("scale.cuh", R"(#pragma once
#include "ptx/lane.cuh"
#include "args/scale.h"

namespace smlora {
struct bf16 {
    unsigned short bits;
};
namespace scale {
template <class C>
__device__ void run(const Args& args) {
    __shared__ typename C::Element tile[C::ROWS];
    tile[threadIdx.x % C::ROWS].bits = static_cast<unsigned short>(ptx::lane());
    __syncthreads();
    if (threadIdx.x < args.count) {
        args.out[threadIdx.x] = twice(static_cast<float>(tile[(threadIdx.x + 1) % C::ROWS].bits)) * C::FACTOR;
    }
}
}  // namespace scale
}  // namespace smlora
)");
    folder.write("ptx/lane.cuh", R"(#pragma once
#include "math.cuh"

namespace smlora::ptx {
__device__ __forceinline__ unsigned lane() {
    unsigned value;
    asm("mov.u32 %0, %%laneid;" : "=r"(value));
    return value;
}
}  // namespace smlora::ptx
)");
    folder.write("ptx/math.cuh", R"(#pragma once
namespace smlora {
__device__ __forceinline__ float twice(float value) { return 2.0f * value; }
}  // namespace smlora
)");
    folder.write("args/scale.h", R"(#pragma once
namespace smlora::scale {
struct Args {
    float* out;
    unsigned count;
    int unused[3];
};
}  // namespace smlora::scale
)");
}

inline jit::KernelSpec sample_spec() {
    jit::KernelSpec spec;
    spec.family = "scale";
    spec.constants = {{"ROWS", 64}, {"FACTOR", 3}, {"Element", "smlora::bf16"}};
    spec.threads = 64;
    return spec;
}

}  // namespace smlora::test
