// group, combine and their gradients by their formulas, in fp64, one row at a time. Without gates (an Array that is not
// given) every gate is 1.
#pragma once

#include "workload/array.hpp"
#include "workload/routing.hpp"

#include <smlora/problem.hpp>

namespace smlora::workload {

/// Row i of what group makes of x, whose rows are in the order of tokens or scattered: zero behind the routed rows.
[[nodiscard]] Values grouped_row(const Array& x, const Array& gates, const HostRouting& routing, const Problem& problem,
                                 std::int64_t i);

/// Row t of what combine makes of y, which has a row for each entry.
[[nodiscard]] Values combined_row(const Array& y, const Array& gates, std::int64_t top_k, std::int64_t t);

/// What combine_backward makes of dout for flat entry f.
[[nodiscard]] Values combine_dy_row(const Array& dout, const Array& gates, std::int64_t top_k, std::int64_t f);
[[nodiscard]] double combine_dgate(const Array& dout, const Array& y, std::int64_t top_k, std::int64_t f);

}  // namespace smlora::workload
