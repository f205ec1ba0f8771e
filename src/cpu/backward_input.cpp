#include "cpu/elements.hpp"
#include "cpu/factors.hpp"
#include "cpu/operations.hpp"
#include "cpu/rank_rows.hpp"
#include "cpu/row_output.hpp"
#include "cpu/tile.hpp"

#include <optional>

namespace smlora::cpu {
namespace {

/// dgates[f] = <dx_i / g_f, x_i> + <dy_t, b_e>. The first sum comes in pieces, one for each tile across K, from
/// whichever thread has the tile; they are added up in order at the end. In double: it costs nothing here.
template <class Acc>
class GateGradient {
 public:
    GateGradient(const Problem& problem, const BackwardInputArgs& args, const RoutedRows& rows,
                 const std::vector<std::int64_t>& x_row)
        : args_(args),
          rows_(rows),
          x_row_(x_row),
          bias_(load_all<Acc>(problem.bias ? args.bias : Tensor{})),
          pieces_((problem.K + tile_columns - 1) / tile_columns),
          sums_(static_cast<std::size_t>(rows.routed() * pieces_)) {}

    /// The columns of dx_i before the gate.
    void add(const Segment<Acc>& segment) {
        Acc x[tile_columns];
        const std::int64_t row = x_row_[static_cast<std::size_t>(segment.row)];
        load_row(row_at(args_.x, row, segment.column), args_.x.dtype, segment.columns, x);
        double sum = 0;
        for (std::int64_t c = 0; c < segment.columns; ++c) {
            sum += static_cast<double>(segment.values[c]) * static_cast<double>(x[c]);
        }
        sums_[static_cast<std::size_t>(segment.row * pieces_ + segment.column / tile_columns)] = sum;
    }

    void store(util::ThreadPool& threads) const {
        threads.parallel_for(rows_.size(), [&](std::int64_t i) {
            Acc gradient = 0;
            if (i < rows_.routed()) {
                const double* pieces = sums_.data() + i * pieces_;
                double sum = bias_.empty() ? 0 : bias_product(i);
                for (std::int64_t piece = 0; piece < pieces_; ++piece) sum += pieces[piece];
                gradient = static_cast<Acc>(sum);
            }
            store_row(&gradient, 1, element_at(args_.dgates.data, args_.dgates.dtype, rows_.entry(i)),
                      args_.dgates.dtype);
        });
    }

 private:
    double bias_product(std::int64_t i) const {
        const std::int64_t N = args_.dy.shape[1];
        const std::int64_t t = rows_.entry(i) / (rows_.size() / rows_.tokens());
        const std::int64_t e = rows_.expert(i);
        std::vector<Acc> dy(static_cast<std::size_t>(N));
        load_row(row_at(args_.dy, t), args_.dy.dtype, N, dy.data());
        double sum = 0;
        for (std::int64_t n = 0; n < N; ++n) {
            sum += static_cast<double>(dy[static_cast<std::size_t>(n)]) *
                   static_cast<double>(bias_[static_cast<std::size_t>(e * N + n)]);
        }
        return sum;
    }

    const BackwardInputArgs& args_;
    const RoutedRows& rows_;
    const std::vector<std::int64_t>& x_row_;
    std::vector<Acc> bias_;
    std::int64_t pieces_;
    std::vector<double> sums_;
};

template <class Acc>
void backward_input_in(util::ThreadPool& threads, const Problem& problem, const BackwardInputArgs& args) {
    const RoutedRows rows(problem, args.routing);
    const std::vector<std::int64_t> x_row = rows.rows_in(problem.x_rows);
    const std::vector<std::int64_t> y_row = rows.rows_in(problem.y_rows);
    const Factor<Acc> dy = gathered_rows<Acc>(args.dy, y_row);
    const std::vector<Acc> gates = rows.sorted(load_all<Acc>(args.gates));

    std::vector<RowProduct<Acc>> products{{dy, weight_transposed<Acc>(problem, args.W), problem.N}};
    std::optional<RankRows> yb;
    if (problem.R > 0) {
        yb = RankRows::compute(threads, rows, problem, yb_product(problem, dy, args.B), args.scaling, args.yb);
        // Without scaling nothing of A may reach dx, not even a NaN.
        if (args.scaling != 0) products.push_back({yb->by_row<Acc>(), expert_matrix<Acc>(args.A, 2, 1), problem.R});
    }

    std::optional<GateGradient<Acc>> dgates;
    if (args.dgates.given()) dgates.emplace(problem, args, rows, x_row);
    RowOutput<Acc> dx{args.dx, problem.x_rows, {}, {}};
    dx.finish = [&](const Segment<Acc>& segment, Acc* line) {
        if (dgates) dgates->add(segment);
        const Acc gate = gates.empty() ? Acc{1} : gates[static_cast<std::size_t>(segment.row)];
        for (std::int64_t c = 0; c < segment.columns; ++c) line[c] = gate * segment.values[c];
    };
    multiply_into<Acc>(threads, rows, products, dx);
    if (dgates) dgates->store(threads);
}

}  // namespace

void backward_input(util::ThreadPool& threads, const Problem& problem, const BackwardInputArgs& args) {
    if (problem.dtype == DType::fp64) {
        backward_input_in<double>(threads, problem, args);
    } else {
        backward_input_in<float>(threads, problem, args);
    }
}

}  // namespace smlora::cpu
