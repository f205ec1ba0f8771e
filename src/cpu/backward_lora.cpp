#include "cpu/elements.hpp"
#include "cpu/factors.hpp"
#include "cpu/operations.hpp"
#include "cpu/rank_rows.hpp"

namespace smlora::cpu {
namespace {

/// gradient(e, r, column) = sum over the rows i of expert e of gate_i rank_rows(i, r) wide(i, column), written along
/// the two dimensions of `gradient` that stand for the rank and the column.
template <class Acc>
void write_gradient(util::ThreadPool& threads, const RoutedRows& rows, const Problem& problem,
                    const RankRows& rank_rows, const Factor<Acc>& wide, const std::vector<Acc>& gates,
                    const Tensor& gradient, std::size_t rank_dimension, std::size_t column_dimension) {
    Factor<Acc> left = rank_rows.by_rank<Acc>();
    if (!gates.empty()) left.k_scale = gates.data();
    // The rows that are summed over are gathered: what was the outer index becomes k.
    const Factor<Acc> right{.data = wide.data,
                            .dtype = wide.dtype,
                            .outer_stride = 1,
                            .k_stride = wide.outer_stride,
                            .k_index = wide.outer_index};
    const std::int64_t columns = gradient.shape[column_dimension];
    multiply_experts<Acc>(threads, rows, left, problem.R, right, columns, [&](const Segment<Acc>& segment) {
        const std::int64_t offset = segment.expert * gradient.strides[0] +
                                    segment.row * gradient.strides[rank_dimension] +
                                    segment.column * gradient.strides[column_dimension];
        store_row(segment.values, segment.columns, element_at(gradient.data, gradient.dtype, offset), gradient.dtype,
                  gradient.strides[column_dimension]);
    });
}

template <class Acc>
void backward_lora_in(util::ThreadPool& threads, const Problem& problem, const BackwardLoraArgs& args) {
    const RoutedRows rows(problem, args.routing);
    const std::vector<std::int64_t> x_row = rows.rows_in(problem.x_rows);
    const std::vector<std::int64_t> y_row = rows.rows_in(problem.y_rows);
    const Factor<Acc> x = gathered_rows<Acc>(args.x, x_row);
    const Factor<Acc> dy = gathered_rows<Acc>(args.dy, y_row);
    const std::vector<Acc> gates = rows.sorted(load_all<Acc>(args.gates));

    if (args.dA.given()) {
        const RankRows yb = args.yb.given() ? RankRows(args.yb)
                                            : RankRows::compute(threads, rows, problem, yb_product(problem, dy, args.B),
                                                                args.scaling, {});
        write_gradient(threads, rows, problem, yb, x, gates, args.dA, 1, 2);
    }
    if (args.dB.given()) {
        const RankRows xa = args.xa.given() ? RankRows(args.xa)
                                            : RankRows::compute(threads, rows, problem, xa_product(problem, x, args.A),
                                                                args.scaling, {});
        write_gradient(threads, rows, problem, xa, dy, gates, args.dB, 2, 1);
    }
}

}  // namespace

void backward_lora(util::ThreadPool& threads, const Problem& problem, const BackwardLoraArgs& args) {
    if (problem.dtype == DType::fp64) {
        backward_lora_in<double>(threads, problem, args);
    } else {
        backward_lora_in<float>(threads, problem, args);
    }
}

}  // namespace smlora::cpu
