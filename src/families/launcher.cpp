#include "families/launcher.hpp"

#include <algorithm>

namespace smlora::families {

std::int64_t Launcher::resident(const Step& step) const {
    return static_cast<std::int64_t>(facts_.multiprocessors) * std::max(1, step.kernel->blocks_per_multiprocessor);
}

void Launcher::launch_items(const Step& step, std::int64_t items, const void* args, std::size_t bytes,
                            gpu::Begin begin) const {
    // Earlier GPUs cannot let a kernel begin during the last one.
    if (facts_.arch.number() < 90) begin = gpu::Begin::after_earlier_work;
    const std::int64_t cluster = step.spec.cluster;
    const std::int64_t clusters = std::clamp<std::int64_t>(items / cluster, 1, resident(step) / cluster);
    gpu::launch(*step.kernel, static_cast<unsigned>(clusters * cluster), 1, stream_, args, bytes, begin);
}

}  // namespace smlora::families
