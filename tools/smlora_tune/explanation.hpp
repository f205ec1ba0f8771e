// What is known of every kernel of a problem: which candidate is used, by which record, and the others.
#pragma once

#include "smlora_tune/floor.hpp"
#include "smlora_tune/standing.hpp"

#include "autotune/tuner.hpp"
#include "gpu/device.hpp"

#include <smlora/engine.hpp>
#include <smlora/problem.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace smlora::tool {

/// What a compiled kernel takes.
struct KernelUse {
    std::string kernel;
    std::int64_t registers = 0;
    std::int64_t spill_bytes = 0;
    std::int64_t shared_bytes = 0;  ///< static and dynamic
    unsigned threads = 0;
};

struct Explanation {
    autotune::KnownWork work;
    std::string source;  ///< where the choice is from
    std::string used;
    std::vector<Line> lines;
    std::vector<KernelUse> kernels;
    std::string kernels_error;
    double floor_seconds = 0;
};

/// On this GPU, with an even routing of T tokens. Compiles the kernels that are used, unless the cache has them.
[[nodiscard]] std::vector<Explanation> explain(const Engine& engine, const Problem& problem, std::int64_t T,
                                               const gpu::DeviceFacts& facts, const Ceilings& ceilings);

}  // namespace smlora::tool
