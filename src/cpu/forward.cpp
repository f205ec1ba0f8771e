#include "cpu/elements.hpp"
#include "cpu/factors.hpp"
#include "cpu/operations.hpp"
#include "cpu/rank_rows.hpp"
#include "cpu/row_output.hpp"

#include <optional>

namespace smlora::cpu {
namespace {

template <class Acc>
void forward_in(util::ThreadPool& threads, const Problem& problem, const ForwardArgs& args) {
    const RoutedRows rows(problem, args.routing);
    const std::vector<std::int64_t> x_row = rows.rows_in(problem.x_rows);
    const Factor<Acc> x = gathered_rows<Acc>(args.x, x_row);
    const std::vector<Acc> bias = load_all<Acc>(args.bias);

    std::vector<RowProduct<Acc>> products{{x, weight<Acc>(problem, args.W), problem.K}};
    std::optional<RankRows> xa;
    if (problem.R > 0) {
        xa = RankRows::compute(threads, rows, problem, xa_product(problem, x, args.A), args.scaling, args.xa);
        // Without scaling nothing of B may reach y, not even a NaN.
        if (args.scaling != 0) products.push_back({xa->by_row<Acc>(), expert_matrix<Acc>(args.B, 1, 2), problem.R});
    }

    RowOutput<Acc> y{args.y, problem.y_rows, load_all<Acc>(args.gates), {}};
    y.finish = [&](const Segment<Acc>& segment, Acc* line) {
        const Acc* b = bias.empty() ? nullptr : bias.data() + segment.expert * problem.N + segment.column;
        for (std::int64_t c = 0; c < segment.columns; ++c) {
            line[c] = b == nullptr ? segment.values[c] : segment.values[c] + b[c];
        }
    };
    multiply_into<Acc>(threads, rows, products, y);
}

}  // namespace

void forward(util::ThreadPool& threads, const Problem& problem, const ForwardArgs& args) {
    if (problem.dtype == DType::fp64) {
        forward_in<double>(threads, problem, args);
    } else {
        forward_in<float>(threads, problem, args);
    }
}

}  // namespace smlora::cpu
