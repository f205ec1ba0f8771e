#include "families/gradient_launch.hpp"

#include "families/tiles.hpp"

#include <algorithm>

namespace smlora::families {
namespace {

/// Rows that an expert may have without being cut into chunks of half as many, whose sums are added up afterwards.
/// Twice the mean, so that an even routing writes its gradients straight; less where one expert that has everything
/// would not make enough pieces to fill a GPU.
std::int64_t uncut_rows(const Problem& problem, std::int64_t M) {
    constexpr std::int64_t least = 256;          // below it, adding the pieces up costs more than it spreads
    constexpr std::int64_t blocks_wanted = 512;  // a few for each multiprocessor of the largest GPUs
    constexpr std::int64_t partials_limit = std::int64_t{512} << 20;  // bytes
    const std::int64_t width = problem.K + problem.N;
    const std::int64_t column_tiles = (width + 127) / 128;
    const std::int64_t even = 2 * M / problem.E;
    const std::int64_t spread = M * column_tiles / blocks_wanted;
    const std::int64_t fitting = 3 * M * problem.R * width * 4 / partials_limit;
    const std::int64_t rows = std::max({least, std::min(even, spread), fitting});
    return (rows + 1) / 2 * 2;
}

/// Of the experts that are cut, together: one of r > u rows has at most 2 r / u + 1 chunks, less than 3 r / u.
std::int64_t most_chunks(std::int64_t M, std::int64_t uncut) { return 3 * M / uncut; }

}  // namespace

std::int64_t partials_bytes(const Problem& problem, std::int64_t width, std::int64_t M) {
    return most_chunks(M, uncut_rows(problem, M)) * problem.R * width * 4;
}

void launch_gradients(engine::CudaCall& call, const plan::Plan& plan, const Problem& problem, LoraGradientPair pair) {
    if (plan.has(plan::Role::gradient_a)) {
        const plan::Step& step = plan.at(plan::Role::gradient_a);
        call.launch_grid(step, step.column_tiles, problem.E, pair.a);
    }
    if (plan.has(plan::Role::gradient_b)) {
        const plan::Step& step = plan.at(plan::Role::gradient_b);
        call.launch_grid(step, step.column_tiles, problem.E, pair.b);
    }
    if (!plan.has(plan::Role::gradients)) return;
    const std::int64_t M = pair.a.M;
    const std::int64_t uncut = uncut_rows(problem, M);
    pair.a.uncut_rows = pair.b.uncut_rows = static_cast<int>(uncut);
    const auto tokens = static_cast<double>(M / problem.top_k);
    pair.a.by_span = read_by_span(problem, problem.x_rows, problem.K, tokens, call.facts()) ? 1 : 0;
    pair.b.by_span = read_by_span(problem, problem.y_rows, problem.N, tokens, call.facts()) ? 1 : 0;
    const plan::Step& step = plan.at(plan::Role::gradients);
    call.launch(plan, step, (most_chunks(M, uncut) + problem.E) * step.column_tiles, pair);
    if (M > uncut) {
        const plan::Step& reduce = plan.at(plan::Role::reduce);
        const std::int64_t most_cut = std::min(problem.E, M / uncut);
        call.launch(plan, reduce, most_cut * reduce.column_tiles, pair, gpu::Begin::during_last_kernel);
    }
}

}  // namespace smlora::families
