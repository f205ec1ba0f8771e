#include "smlora_tune/floor.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

namespace smlora::tool {
namespace {

constexpr std::array all_ops{
    Op::base,  Op::forward, Op::dx,      Op::lora_grad,       Op::step, Op::activation, Op::activation_backward,
    Op::route, Op::group,   Op::combine, Op::combine_backward};
constexpr std::array step_ops{Op::forward, Op::dx, Op::lora_grad};

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
    }
    throw std::logic_error("name: unknown operation");
}

std::optional<Op> op_from_name(std::string_view text) {
    for (const Op op : all_ops) {
        if (name(op) == text) return op;
    }
    return std::nullopt;
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
    const double weights = element * active * K * N;
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
