#include "families/gradients.hpp"

#include "args/lora_gradient_reduce.h"
#include "families/roofline.hpp"
#include "families/type_names.hpp"
#include "gpu/driver.hpp"

#include <algorithm>
#include <cmath>

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

/// Of an item with many steps a block has a few only, so that an uneven routing would leave some blocks with most of
/// the work; of those with few steps it has so many that they even out, and a counter would have to be zeroed.
bool taken_as_done(const Problem& problem, std::int64_t M) {
    constexpr std::int64_t many_rows = 256;  // of an expert
    return M >= many_rows * problem.E;
}

/// After the partial sums.
constexpr std::int64_t counter_bytes = 16;

std::int64_t sums_bytes(const Problem& problem, std::int64_t width, std::int64_t M) {
    return most_chunks(M, uncut_rows(problem, M)) * problem.R * width * 4;
}

/// Zeroed: see LoraGradientPair.
int* zeroed_counter(const Launcher& launcher, const Problem& problem, const LoraGradientPair& pair) {
    const bool a = pair.a.partials != nullptr;
    char* const after_sums = static_cast<char*>(a ? pair.a.partials : pair.b.partials) +
                             sums_bytes(problem, a ? problem.K : problem.N, pair.a.M);
    auto* const counter = reinterpret_cast<int*>(after_sums);
    SMLORA_CUDA(cuMemsetD32Async, reinterpret_cast<CUdeviceptr>(counter), 0, 1, launcher.stream());
    return counter;
}

/// Whether a wide operand, whose rows are read for each of their token's experts, is too large to stay in L2 as a
/// whole, so that only a span of its columns may.
bool read_by_span(const Problem& problem, RowOrder rows, std::int64_t width, double tokens,
                  const gpu::DeviceFacts& facts) {
    const double bytes = tokens * static_cast<double>(width) * static_cast<double>(size_of(problem.dtype));
    return rows == RowOrder::token && bytes > static_cast<double>(facts.l2_bytes) / 2;
}

/// Blocks that are busy at the same time go over the tokens in step, so that what they share is read once. The chunks
/// take `turns` of them one after the other, and a token's row is read in each turn that has one of its experts: how
/// often, beside the first time.
double times_read_again(const GradientWork& work, double turns) {
    if (turns <= 1) return 0;
    const auto has_one = [&](double share) { return 1 - std::pow(1 - share, static_cast<double>(work.problem.top_k)); };
    const double whole_turns = std::floor(turns);
    return whole_turns * has_one(1 / turns) + has_one(1 - whole_turns / turns) - 1;
}

/// The share of what was read that is no more in L2 once `bytes` have passed through it.
double gone_from_l2(double bytes, const gpu::DeviceFacts& facts) {
    // Both fitted, like the models that this is for.
    constexpr double room = 1.05;
    constexpr double sharpness = 4;
    return 1 / (1 + std::pow(room * static_cast<double>(facts.l2_bytes) / bytes, sharpness));
}

}  // namespace

GradientSize gradient_size(const GradientWork& work) {
    const Problem& problem = work.problem;
    const double rows = work.tokens * static_cast<double>(problem.top_k);
    const double gradient =
        static_cast<double>(problem.E * problem.R) * static_cast<double>(size_of(problem.adapter_dtype));
    GradientSize size;
    size.E = problem.E;
    size.R = problem.R;
    size.padded_rank = padded_rank(problem);
    size.gates = problem.gates;
    size.rows_per_expert = rows / static_cast<double>(problem.E);
    const auto add = [&](std::int64_t width, RowOrder order) {
        if (width == 0) return;
        // A token's row is read for each of its experts, from memory once.
        constexpr double cost_of_l2 = 0.4;
        const double rows_read = order == RowOrder::token ? work.tokens + cost_of_l2 * (rows - work.tokens) : rows;
        size.bytes += 2 * (rows_read * static_cast<double>(width) + rows * static_cast<double>(padded_rank(problem))) +
                      gradient * static_cast<double>(width);
    };
    add(work.wide_a(), problem.x_rows);
    add(work.wide_b(), problem.y_rows);
    return size;
}

double SpanSize::steps(int step_rows) const { return std::max(rows / step_rows + busy_chunks / 2, busy_chunks); }

SpanSize span_size(const GradientWork& work, const SpanCut& cut, const gpu::DeviceFacts& facts) {
    const Problem& problem = work.problem;
    const auto experts = static_cast<double>(problem.E);
    SpanSize size;
    size.rows = work.tokens * static_cast<double>(problem.top_k);
    const double mean = size.rows / experts;
    const auto uncut = static_cast<double>(uncut_rows(problem, static_cast<std::int64_t>(size.rows)));
    const double chunks = mean <= uncut ? 1 : std::ceil(2 * mean / uncut);
    size.chunks = experts * chunks;
    size.busy_chunks = size.chunks * (1 - std::exp(-mean));
    const auto cut_side = [&](std::int64_t width) {
        SpanSize::Side side;
        if (width == 0) return side;
        const std::int64_t spans = (width + cut.columns - 1) / cut.columns;
        const std::int64_t even = (width + spans - 1) / spans;
        side.spans = static_cast<double>(spans * cut.rank_tiles);
        side.columns = static_cast<double>((even + cut.unit - 1) / cut.unit * cut.unit);
        return side;
    };
    size.sides = {cut_side(work.wide_a()), cut_side(work.wide_b())};
    const double spans = size.sides[0].spans + size.sides[1].spans;
    const double at_once = static_cast<double>(facts.multiprocessors) * cut.blocks;
    size.last_to_mean = last_to_mean(size.chunks * spans / at_once);
    const double rows_of_chunk = size.rows / size.chunks;
    const auto chunks_at_once = [&](const SpanSize::Side& side) { return at_once * side.spans / spans; };
    const auto bytes_of_turn = [&](const SpanSize::Side& side, RowOrder order) {
        const double rows = chunks_at_once(side) * rows_of_chunk;
        return 2 * side.columns * (order == RowOrder::token ? std::min(rows, work.tokens) : rows);
    };
    const double turn = bytes_of_turn(size.sides[0], problem.x_rows) + bytes_of_turn(size.sides[1], problem.y_rows);
    const auto add_bytes = [&](const SpanSize::Side& side, std::int64_t width, RowOrder order) {
        if (width == 0) return;
        double rows_read = size.rows;
        if (order == RowOrder::token) {
            rows_read = work.tokens;
            if (read_by_span(problem, order, width, work.tokens, facts)) {
                rows_read += times_read_again(work, size.chunks / chunks_at_once(side)) * work.tokens *
                             gone_from_l2(turn, facts);
            }
            rows_read *= static_cast<double>(cut.rank_tiles);
        }
        // A piece of a row begins and ends within a sector.
        constexpr double more_columns = 16;
        const auto columns = static_cast<double>(width);
        const double read = columns * (1 + more_columns / side.columns);
        size.bytes +=
            2 * (rows_read * read + side.spans * size.rows * static_cast<double>(padded_rank(problem))) +
            experts * static_cast<double>(problem.R) * columns * static_cast<double>(size_of(problem.adapter_dtype));
    };
    add_bytes(size.sides[0], work.wide_a(), problem.x_rows);
    add_bytes(size.sides[1], work.wide_b(), problem.y_rows);
    return size;
}

double predicted_gradient_seconds(double work_seconds, double bytes, const gpu::DeviceFacts& facts) {
    // The kernel that adds up partial sums begins during this one, and mostly ends at once.
    constexpr double seconds_of_second_launch = 2e-6;
    return seconds_of_launch + seconds_of_second_launch + predicted_seconds(work_seconds, bytes, facts);
}

double bytes_moved(const GradientSize& size, int ranks) {
    const auto rank_tiles = static_cast<double>((size.R + ranks - 1) / ranks);
    const double idle = std::max(0.0, static_cast<double>(ranks) / static_cast<double>(size.R) - 1);
    constexpr double share_of_memory_speed = 0.75;  // by the records of Hopper
    const double gating = size.gates ? 1.5 : 1;     // rank rows and gates are multiplied on the way
    return size.bytes * rank_tiles * (1 + 0.1 * idle) * gating / share_of_memory_speed;
}

std::vector<jit::Constant> gradient_pair_constants(const GradientWork& work) {
    const Problem& problem = work.problem;
    return {
        {"E", problem.E},
        {"WIDE_A", work.wide_a()},
        {"WIDE_B", work.wide_b()},
        {"ROWS_A", static_cast<int>(problem.x_rows)},
        {"ROWS_B", static_cast<int>(problem.y_rows)},
        {"RANK", problem.R},
        {"RANK_STRIDE", padded_rank(problem)},
        {"TOP_K", problem.top_k},
        {"HAS_GATES", problem.gates},
        {"Element", type_name(problem.dtype)},
        {"Output", type_name(problem.adapter_dtype)},
        {"Gate", gate_type_name(problem, problem.gates)},
        {"Index", type_name(problem.index_dtype)},
    };
}

int gradient_tiles(const GradientWork& work, std::int64_t columns, std::int64_t ranks) {
    return static_cast<int>(((work.wide_a() + columns - 1) / columns + (work.wide_b() + columns - 1) / columns) *
                            ((work.problem.R + ranks - 1) / ranks));
}

Step gradients_reduce_step(const GradientWork& work) {
    const Problem& problem = work.problem;
    Step step;
    step.spec.family = "lora_gradient_reduce";
    step.spec.threads = lora_gradient_reduce::block_threads;
    step.spec.dynamic_shared =
        static_cast<unsigned>(lora_gradient_reduce::shared_memory(static_cast<int>(problem.E)).bytes);
    const auto pieces = [&](std::int64_t wide) {
        return lora_gradient_reduce::pieces(static_cast<int>(wide), static_cast<int>(problem.R));
    };
    step.column_tiles = pieces(work.wide_a()) + pieces(work.wide_b());
    step.spec.constants = {
        {"E", problem.E},
        {"WIDE_A", work.wide_a()},
        {"WIDE_B", work.wide_b()},
        {"RANK", problem.R},
        {"Output", type_name(problem.adapter_dtype)},
        {"Index", type_name(problem.index_dtype)},
    };
    return step;
}

std::int64_t partials_bytes(const Problem& problem, std::int64_t width, std::int64_t M) {
    return width == 0 ? 0 : sums_bytes(problem, width, M) + counter_bytes;
}

void launch_gradients(const Launcher& launcher, const GradientSteps& steps, const Problem& problem,
                      LoraGradientPair pair) {
    if (steps.a != nullptr) launcher.launch_grid(*steps.a, steps.a->column_tiles, problem.E, pair.a);
    if (steps.b != nullptr) launcher.launch_grid(*steps.b, steps.b->column_tiles, problem.E, pair.b);
    if (steps.both == nullptr) return;
    const std::int64_t M = pair.a.M;
    const std::int64_t uncut = uncut_rows(problem, M);
    pair.a.uncut_rows = pair.b.uncut_rows = static_cast<int>(uncut);
    const auto tokens = static_cast<double>(M / problem.top_k);
    pair.a.by_span = read_by_span(problem, problem.x_rows, problem.K, tokens, launcher.facts()) ? 1 : 0;
    pair.b.by_span = read_by_span(problem, problem.y_rows, problem.N, tokens, launcher.facts()) ? 1 : 0;
    if (steps.both->takes_items && taken_as_done(problem, M)) pair.taken = zeroed_counter(launcher, problem, pair);
    launcher.launch(*steps.both, (most_chunks(M, uncut) + problem.E) * steps.both->column_tiles, pair);
    if (M > uncut) {
        const std::int64_t most_cut = std::min(problem.E, M / uncut);
        launcher.launch(*steps.reduce, most_cut * steps.reduce->column_tiles, pair, gpu::Begin::during_last_kernel);
    }
}

}  // namespace smlora::families
