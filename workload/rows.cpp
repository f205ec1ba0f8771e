#include "workload/rows.hpp"

#include <numeric>

namespace smlora::workload {
namespace {

Values times_gate(Values row, const Array& gates, std::int64_t f) {
    if (!gates.given()) return row;
    const double gate = gates.at(f);
    for (double& value : row) value *= gate;
    return row;
}

}  // namespace

Values grouped_row(const Array& x, const Array& gates, const HostRouting& routing, const Problem& problem,
                   std::int64_t i) {
    if (i >= routing.rows()) return Values(index(x.width()));
    const std::int64_t f = routing.entry(i);
    return times_gate(x.row(problem.x_rows == RowOrder::token ? f / problem.top_k : f), gates, f);
}

Values combined_row(const Array& y, const Array& gates, std::int64_t top_k, std::int64_t t) {
    Values sum(index(y.width()));
    for (std::int64_t f = t * top_k; f < (t + 1) * top_k; ++f) {
        const Values row = times_gate(y.row(f), gates, f);
        for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += row[c];
    }
    return sum;
}

Values combine_dy_row(const Array& dout, const Array& gates, std::int64_t top_k, std::int64_t f) {
    return times_gate(dout.row(f / top_k), gates, f);
}

double combine_dgate(const Array& dout, const Array& y, std::int64_t top_k, std::int64_t f) {
    const Values dout_row = dout.row(f / top_k);
    const Values y_row = y.row(f);
    return std::inner_product(dout_row.begin(), dout_row.end(), y_row.begin(), 0.0);
}

}  // namespace smlora::workload
