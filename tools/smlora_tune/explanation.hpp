// What is known of every kernel of a problem: which candidate is used, by which record, and the others.
#pragma once

#include "smlora_tune/floor.hpp"
#include "smlora_tune/standing.hpp"

#include "autotune/tuner.hpp"
#include "gpu/device.hpp"

#include <smlora/engine.hpp>
#include <smlora/problem.hpp>

#include <cstdint>
#include <optional>
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

/// How quantised weights are unpacked for a product.
struct Unpacking {
    WeightFormat weights;
    std::int64_t experts = 0;  ///< at once: all, or a slice of them
    std::int64_t slices = 0;
    std::int64_t bytes = 0;    ///< that so many experts are unpacked to
    double packed_bytes = 0;   ///< of all experts
    double floor_seconds = 0;  ///< to unpack all experts
};

/// Nothing for plain weights.
[[nodiscard]] std::optional<Unpacking> explain_unpacking(const Engine& engine, const Problem& problem,
                                                         const Ceilings& ceilings);

/// On this GPU, with an even routing of T tokens. Compiles the kernels that are used, unless the cache has them.
/// Products of quantised weights that are unpacked are chosen as those of plain ones, which they read then: choices,
/// times and floors are theirs.
[[nodiscard]] std::vector<Explanation> explain(const Engine& engine, const Problem& problem, std::int64_t T,
                                               const gpu::DeviceFacts& facts, const Ceilings& ceilings);

}  // namespace smlora::tool
