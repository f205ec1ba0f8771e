#include "smlora_tune/floor.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

namespace smlora::tool {
namespace {

constexpr std::array all_ops{
    Op::base,  Op::forward, Op::dx,      Op::lora_grad,        Op::step,  Op::activation, Op::activation_backward,
    Op::route, Op::group,   Op::combine, Op::combine_backward, Op::unpack};
constexpr std::array step_ops{Op::forward, Op::dx, Op::lora_grad};

double quotient_up(std::int64_t value, std::int64_t divisor) {
    return static_cast<double>((value + divisor - 1) / divisor);
}

/// Of one expert.
double weight_bytes(const Problem& problem) {
    if (problem.weights.encoding != Encoding::plain) return packed_bytes(problem);
    return static_cast<double>(size_of(problem.dtype)) * static_cast<double>(problem.K) *
           static_cast<double>(problem.N);
}

}  // namespace

std::string_view name(Op op) {
    switch (op) {
        case Op::base:
            return "base";
        case Op::forward:
            return "forward";
        case Op::dx:
            return "dx";
        case Op::lora_grad:
            return "lora_grad";
        case Op::step:
            return "step";
        case Op::activation:
            return "activation";
        case Op::activation_backward:
            return "activation_backward";
        case Op::route:
            return "route";
        case Op::group:
            return "group";
        case Op::combine:
            return "combine";
        case Op::combine_backward:
            return "combine_backward";
        case Op::unpack:
            return "unpack";
    }
    throw std::logic_error("name: unknown operation");
}

std::optional<Op> op_from_name(std::string_view text) {
    for (const Op op : all_ops) {
        if (name(op) == text) return op;
    }
    return std::nullopt;
}

double packed_bytes(const Problem& problem) {
    const WeightFormat& format = problem.weights;
    const bool enk = problem.weight_layout == WeightLayout::enk;
    const std::int64_t rows = enk ? problem.N : problem.K;
    const std::int64_t columns = enk ? problem.K : problem.N;
    const auto values = static_cast<double>(rows) * static_cast<double>(columns);
    const auto scale = static_cast<double>(size_of(format.scales));
    const auto block = static_cast<double>(format.block);
    constexpr double fp32 = 4;
    switch (format.encoding) {
        case Encoding::nf4:
        case Encoding::fp4: {
            const double outer = format.outer_block > 0 ? fp32 / static_cast<double>(format.outer_block) : 0;
            return values / 2 + values / block * (scale + outer);
        }
        case Encoding::int8:
            return values + static_cast<double>(rows) * scale;
        case Encoding::fp8:
            return values + static_cast<double>(format.parts) * quotient_up(rows / format.parts, format.block) *
                                quotient_up(columns, format.block) * scale;
        case Encoding::mxfp8:
            return values + values / block * scale;
        case Encoding::mxfp4:
        case Encoding::int4:
            return values / 2 + values / block * scale;
        case Encoding::nvfp4:
            return values / 2 + values / block * scale + static_cast<double>(format.parts) * fp32;
        case Encoding::plain:
            break;
    }
    throw std::logic_error("packed_bytes: a plain weight is not packed");
}

Work work(Op op, const Problem& problem, const Load& load) {
    const auto K = static_cast<double>(problem.K);
    const auto N = static_cast<double>(problem.N);
    const auto R = static_cast<double>(problem.R);
    const auto M = static_cast<double>(load.rows);
    const auto T = static_cast<double>(load.tokens);
    const auto active = static_cast<double>(load.active_experts);
    const auto element = static_cast<double>(size_of(problem.dtype));
    const auto adapter_element = static_cast<double>(size_of(problem.adapter_dtype));

    const double x = element * K * (problem.x_rows == RowOrder::token ? T : M);
    const double y = element * N * (problem.y_rows == RowOrder::token ? T : M);
    const double weights = active * weight_bytes(problem);
    const double adapters = adapter_element * active * R * (K + N);
    const double gradients = adapter_element * static_cast<double>(problem.E) * R * (K + N);
    const double entries = T * static_cast<double>(problem.top_k);
    const double gates = entries * static_cast<double>(size_of(problem.gate_dtype));
    switch (op) {
        case Op::base:
            return {2 * M * K * N, weights + x + y};
        case Op::forward:
            return {2 * M * K * N + 2 * M * R * (K + N), weights + x + y + adapters};
        case Op::dx:
            return {2 * M * K * N + 2 * M * R * (K + N), weights + x + y + adapters + (problem.gates ? x : 0)};
        case Op::lora_grad:
            return {4 * M * R * (K + N), x + y + adapters + gradients};
        case Op::activation:
            return {0, 1.5 * y};
        case Op::activation_backward:
            return {0, 2.5 * y};
        case Op::route:
            return {0,
                    static_cast<double>(size_of(problem.index_dtype)) * (3 * entries + static_cast<double>(problem.E))};
        case Op::group:
            return {0, x + element * K * entries};
        case Op::combine:
            return {0, element * N * (entries + T) + gates};
        case Op::combine_backward:
            return {0, element * N * (2 * entries + T) + 2 * gates};
        case Op::unpack:
            return {0, static_cast<double>(problem.E) * (packed_bytes(problem) + element * K * N)};
        case Op::step:
            break;
    }
    throw std::logic_error("work: a step is a sum of operations");
}

double floor_seconds(Op op, const Problem& problem, const Load& load, const Ceilings& ceilings) {
    if (op == Op::step) {
        double sum = 0;
        for (const Op part : step_ops) sum += floor_seconds(part, problem, load, ceilings);
        return sum;
    }
    const Work needed = work(op, problem, load);
    return std::max(needed.flop / ceilings.flop_per_second, needed.bytes / ceilings.bytes_per_second);
}

Work total_work(Op op, const Problem& problem, const Load& load) {
    if (op != Op::step) return work(op, problem, load);
    Work sum;
    for (const Op part : step_ops) {
        const Work needed = work(part, problem, load);
        sum.flop += needed.flop;
        sum.bytes += needed.bytes;
    }
    return sum;
}

}  // namespace smlora::tool
