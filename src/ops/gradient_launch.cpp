#include "ops/gradient_launch.hpp"

#include <algorithm>

namespace smlora::ops {
namespace {

/// Rows that one block sums before its piece is added to others. Experts of twice the mean are not cut, so that an even
/// routing writes its gradients straight; one expert that has everything is cut into enough pieces to fill a GPU.
std::int64_t chunk_rows(const Problem& problem, std::int64_t M) {
    constexpr std::int64_t least = 256;          // below it, adding the pieces up costs more than it spreads
    constexpr std::int64_t blocks_wanted = 512;  // a few for each multiprocessor of the largest GPUs
    constexpr std::int64_t partials_limit = std::int64_t{512} << 20;  // bytes
    const std::int64_t width = problem.K + problem.N;
    const std::int64_t column_tiles = (width + 127) / 128;
    const std::int64_t even = 2 * M / problem.E;
    const std::int64_t spread = M * column_tiles / blocks_wanted;
    const std::int64_t fitting = 2 * M * problem.R * width * 4 / partials_limit;
    return std::max({least, std::min(even, spread), fitting});
}

}  // namespace

// An expert with several chunks has at most 2 rows / chunk of them.
std::int64_t partials_bytes(const Problem& problem, std::int64_t width, std::int64_t M) {
    return 2 * M / chunk_rows(problem, M) * problem.R * width * 4;
}

void launch_gradients(CudaCall& call, const Plan& plan, const Problem& problem, LoraGradientPair pair) {
    if (plan.has(Role::gradient_a)) {
        const Step& step = plan.at(Role::gradient_a);
        call.launch_grid(step, step.column_tiles, problem.E, pair.a);
    }
    if (plan.has(Role::gradient_b)) {
        const Step& step = plan.at(Role::gradient_b);
        call.launch_grid(step, step.column_tiles, problem.E, pair.b);
    }
    if (!plan.has(Role::gradients)) return;
    const std::int64_t M = pair.a.M;
    const std::int64_t chunk = chunk_rows(problem, M);
    pair.a.chunk_rows = pair.b.chunk_rows = static_cast<int>(chunk);
    const Step& step = plan.at(Role::gradients);
    call.launch(plan, step, (M / chunk + problem.E) * step.column_tiles, pair);
    if (M > chunk) {
        // At most M / chunk experts have several chunks.
        const Step& reduce = plan.at(Role::reduce);
        const std::int64_t pieces = (problem.R * (problem.K + problem.N)) / reduce.tile_rows + 2;
        call.launch(plan, reduce, std::min(problem.E, M / chunk) * pieces, pair, gpu::Begin::during_last_kernel);
    }
}

}  // namespace smlora::ops
