#include "families/route.hpp"

#include "args/route.h"
#include "families/type_names.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace smlora::families {
namespace {

constexpr std::int64_t small_capacity = 16384;  // entries

/// Columns of the table of counts.
std::int64_t route_columns(const Problem& problem) { return smlora::route_columns(static_cast<int>(problem.E)); }

Step route_step(const char* family, unsigned threads, std::vector<jit::Constant> constants) {
    Step step;
    step.spec.family = family;
    step.spec.threads = threads;
    constants.emplace_back("THREADS", static_cast<std::int64_t>(threads));
    step.spec.constants = std::move(constants);
    return step;
}

std::vector<jit::Constant> entry_constants(const Problem& problem, DType input_index) {
    return {{"E", problem.E}, {"Input", type_name(input_index)}, {"Index", type_name(problem.index_dtype)}};
}

/// Blocks that count and scatter, and the entries that each takes: enough blocks to fill a GPU, and no block so small
/// that its table of counts costs more than its entries.
struct Cut {
    std::int64_t chunk;
    std::int64_t blocks;
};

Cut cut(std::int64_t M) {
    constexpr std::int64_t blocks_wanted = 264;  // two for each multiprocessor of an H200
    constexpr std::int64_t threads = 256;
    const std::int64_t even = (M + blocks_wanted - 1) / blocks_wanted;
    const std::int64_t chunk = std::max<std::int64_t>(2048, (even + threads - 1) / threads * threads);
    return {chunk, std::max<std::int64_t>(1, (M + chunk - 1) / chunk)};
}

}  // namespace

std::optional<Step> route_small_step(const Problem& problem, DType input_index, const gpu::DeviceFacts& facts) {
    constexpr unsigned threads = 1024;
    std::vector<jit::Constant> constants = entry_constants(problem, input_index);
    constants.emplace_back("CAPACITY", small_capacity);
    Step step = route_step("route_small", threads, std::move(constants));
    step.spec.dynamic_shared =
        static_cast<unsigned>(route_small::shared_memory(static_cast<int>(problem.E), threads, small_capacity).bytes);
    if (step.spec.dynamic_shared > static_cast<unsigned>(facts.shared_bytes_per_block)) return std::nullopt;
    return step;
}

Step route_count_step(const Problem& problem, DType input_index) {
    return route_step("route_count", 256, entry_constants(problem, input_index));
}

Step route_scan_step(const Problem& problem) { return route_step("route_scan", 1024, {{"E", problem.E}}); }

Step route_scatter_step(const Problem& problem, DType input_index) {
    return route_step("route_scatter", 256, entry_constants(problem, input_index));
}

std::int64_t route_counts_bytes(const Problem& problem, std::int64_t M) {
    return (cut(M).blocks + 1) * route_columns(problem) * 4;
}

bool is_small_route(std::int64_t M) { return M <= small_capacity; }

void launch_small_route(const Launcher& launcher, const Step& step, const RouteKernelArgs& args) {
    launcher.launch_grid(step, 1, 1, args);
}

void launch_route(const Launcher& launcher, const RouteSteps& steps, const Problem& problem, RouteKernelArgs args,
                  void* counts) {
    const Cut pieces = cut(args.M);
    args.counts = static_cast<int*>(counts);
    args.blocks = static_cast<int>(pieces.blocks);
    args.chunk = static_cast<int>(pieces.chunk);
    launcher.launch_grid(*steps.count, pieces.blocks, 1, args);
    launcher.launch_grid(*steps.scan, route_columns(problem) / 32, 1, args);
    launcher.launch_grid(*steps.scatter, pieces.blocks, 1, args);
}

}  // namespace smlora::families
