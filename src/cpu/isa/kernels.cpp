#include "cpu/isa/kernels.hpp"

namespace smlora::cpu {

namespace baseline {
KernelSet kernels();
}
#if defined(__x86_64__)
namespace x86_64_v3 {
KernelSet kernels();
}
namespace x86_64_v4 {
KernelSet kernels();
}

namespace {

#if defined(__clang__) && __clang_major__ < 17
// It has no names for the levels.
bool supports_v3() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("fma");
}
bool supports_v4() {
    return supports_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#else
bool supports_v3() { return __builtin_cpu_supports("x86-64-v3"); }
bool supports_v4() { return __builtin_cpu_supports("x86-64-v4"); }
#endif

}  // namespace
#endif

const std::vector<KernelSet>& kernel_sets() {
    static const auto& sets = *new std::vector<KernelSet>([] {
        std::vector<KernelSet> found;
#if defined(__x86_64__)
        __builtin_cpu_init();
        if (supports_v4()) found.push_back(x86_64_v4::kernels());
        if (supports_v3()) found.push_back(x86_64_v3::kernels());
#endif
        found.push_back(baseline::kernels());
        return found;
    }());
    return sets;
}

}  // namespace smlora::cpu
