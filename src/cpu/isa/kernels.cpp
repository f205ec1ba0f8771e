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
#endif

const std::vector<KernelSet>& kernel_sets() {
    static const auto& sets = *new std::vector<KernelSet>([] {
        std::vector<KernelSet> found;
#if defined(__x86_64__)
        __builtin_cpu_init();
        if (__builtin_cpu_supports("x86-64-v4")) found.push_back(x86_64_v4::kernels());
        if (__builtin_cpu_supports("x86-64-v3")) found.push_back(x86_64_v3::kernels());
#endif
        found.push_back(baseline::kernels());
        return found;
    }());
    return sets;
}

}  // namespace smlora::cpu
