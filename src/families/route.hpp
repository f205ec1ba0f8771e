// Sorting routed entries by expert: one kernel for few, three for many.
#pragma once

#include "args/route.h"
#include "families/launcher.hpp"
#include "families/step.hpp"
#include "gpu/device.hpp"

#include <smlora/problem.hpp>

#include <cstdint>
#include <optional>

namespace smlora::families {

/// Nothing where its shared memory does not fit the GPU.
[[nodiscard]] std::optional<Step> route_small_step(const Problem& problem, DType input_index,
                                                   const gpu::DeviceFacts& facts);
[[nodiscard]] Step route_count_step(const Problem& problem, DType input_index);
[[nodiscard]] Step route_scan_step(const Problem& problem);
[[nodiscard]] Step route_scatter_step(const Problem& problem, DType input_index);

/// Bytes of scratch memory for M entries, if the three kernels sort them.
[[nodiscard]] std::int64_t route_counts_bytes(const Problem& problem, std::int64_t M);

/// Whether one kernel sorts M entries. With more, one multiprocessor is slower than three launches on all of them.
[[nodiscard]] bool is_small_route(std::int64_t M);

struct RouteSteps {
    const Step* count = nullptr;
    const Step* scan = nullptr;
    const Step* scatter = nullptr;
};

/// With one kernel.
void launch_small_route(const Launcher& launcher, const Step& step, const RouteKernelArgs& args);

/// With three, and `counts` of route_counts_bytes(). Fills in how entries are cut into chunks.
void launch_route(const Launcher& launcher, const RouteSteps& steps, const Problem& problem, RouteKernelArgs args,
                  void* counts);

}  // namespace smlora::families
