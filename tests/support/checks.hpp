// Outputs against the reference: all elements of small cases; of large ones the rows and experts where indices go wrong
// first (the first and last rows of experts, the last row of all) and a random sample of the rest.
#pragma once

#include "support/comparison.hpp"
#include "support/projection.hpp"
#include "workload/reference.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <set>
#include <string_view>
#include <vector>

namespace smlora::test {

/// Multiply-adds that the reference may spend on one output: about a tenth of a second.
inline constexpr std::int64_t reference_budget = 60'000'000;

inline double tolerance(const workload::Projection& p, const Array& output) {
    return std::max(tolerance_of(p.problem.dtype), tolerance_of(output.dtype()));
}

/// Rows of an output in this order to compare, when one takes `cost` multiply-adds.
inline std::vector<std::int64_t> sample_rows(const workload::Projection& p, RowOrder order, std::int64_t cost) {
    const std::int64_t count = order == RowOrder::token ? p.T : p.M;
    const std::int64_t affordable = std::max<std::int64_t>(8, reference_budget / std::max<std::int64_t>(1, cost));
    std::set<std::int64_t> rows;
    if (count <= affordable) {
        for (std::int64_t r = 0; r < count; ++r) rows.insert(r);
        return {rows.begin(), rows.end()};
    }
    const auto add_position = [&](std::int64_t i) {
        if (i < 0 || i >= p.M || static_cast<std::int64_t>(rows.size()) >= affordable) return;
        const std::int64_t f = p.host_routing.entry(i);
        rows.insert(order == RowOrder::grouped ? i : order == RowOrder::scattered ? f : f / p.problem.top_k);
    };
    add_position(0);
    add_position(p.host_routing.rows() - 1);
    add_position(p.host_routing.rows());
    add_position(p.M - 1);
    const Random random = fresh("sample");
    for (std::uint64_t i = 0; static_cast<std::int64_t>(rows.size()) < affordable; ++i) {
        const std::int64_t e = random.below(2 * i, p.problem.E);
        if (!p.idle(e)) {
            add_position(p.host_routing.begin(e));
            add_position(p.host_routing.end(e) - 1);
        }
        add_position(random.below(2 * i + 1, p.M));
    }
    return {rows.begin(), rows.end()};
}

/// Every element is written: finite, and zero in rows that no entry goes to.
inline void expect_written(const workload::Projection& p, const Array& output, RowOrder order) {
    EXPECT_TRUE(output.untouched_outside()) << "bytes around the rows were overwritten";
    std::atomic<std::int64_t> not_finite{0}, not_zero{0};
    in_parallel(output.rows(), output.width(), [&](std::int64_t begin, std::int64_t end) {
        Values row(index(output.width()));
        for (std::int64_t r = begin; r < end; ++r) {
            output.row(r, row.data());
            const bool zero = p.unused(order, r);
            for (double value : row) {
                if (!std::isfinite(value)) ++not_finite;
                if (zero && value != 0) ++not_zero;
            }
        }
    });
    EXPECT_EQ(not_finite, 0) << "elements are not finite";
    EXPECT_EQ(not_zero, 0) << "elements of rows that are left out are not zero";
}

inline void expect_y(const workload::Projection& p, const Array& y) {
    SCOPED_TRACE("y");
    expect_written(p, y, p.problem.y_rows);
    const Reference reference(p);
    Comparison comparison;
    const std::int64_t entries = p.problem.y_rows == RowOrder::token ? p.problem.top_k : 1;
    for (std::int64_t r : sample_rows(p, p.problem.y_rows, p.problem.K * p.problem.N * entries)) {
        comparison.add_group(y.row(r), reference.y_output(r));
    }
    EXPECT_TRUE(comparison.within(tolerance(p, y)));
}

inline void expect_dx(const workload::Projection& p, const Array& dx) {
    SCOPED_TRACE("dx");
    expect_written(p, dx, p.problem.x_rows);
    const Reference reference(p);
    Comparison comparison;
    const std::int64_t entries = p.problem.x_rows == RowOrder::token ? p.problem.top_k : 1;
    for (std::int64_t r : sample_rows(p, p.problem.x_rows, p.problem.K * p.problem.N * entries)) {
        comparison.add_group(dx.row(r), reference.dx_output(r));
    }
    EXPECT_TRUE(comparison.within(tolerance(p, dx)));
}

/// xa or yb: grouped rows of R values, then zeros up to the padded rank. Nothing is promised of rows of entries left
/// out.
template <class RowOf>
void expect_ranked(const workload::Projection& p, const Array& ranked, std::int64_t cost, const RowOf& row_of) {
    EXPECT_TRUE(ranked.untouched_outside()) << "bytes around the rows were overwritten";
    Comparison comparison;
    Values actual, expected;
    for (std::int64_t i : sample_rows(p, RowOrder::grouped, cost)) {
        if (i >= p.host_routing.rows()) continue;
        const Values row = ranked.row(i);
        const auto padding = row.begin() + static_cast<std::ptrdiff_t>(p.problem.R);
        EXPECT_TRUE(std::all_of(padding, row.end(), [](double value) { return value == 0; })) << "padding of row " << i;
        actual.insert(actual.end(), row.begin(), padding);
        const Values reference = row_of(i);
        expected.insert(expected.end(), reference.begin(), reference.end());
    }
    comparison.add_group(actual, expected);
    EXPECT_TRUE(comparison.within(tolerance(p, ranked)));
}
inline void expect_xa(const workload::Projection& p, const Array& xa) {
    SCOPED_TRACE("xa");
    const Reference reference(p);
    expect_ranked(p, xa, p.problem.K * p.problem.R, [&](std::int64_t i) { return reference.xa(i); });
}
inline void expect_yb(const workload::Projection& p, const Array& yb) {
    SCOPED_TRACE("yb");
    const Reference reference(p);
    expect_ranked(p, yb, p.problem.N * p.problem.R, [&](std::int64_t i) { return reference.yb(i); });
}

inline void expect_dgates(const workload::Projection& p, const Array& dgates) {
    SCOPED_TRACE("dgates");
    EXPECT_TRUE(dgates.untouched_outside()) << "bytes around the rows were overwritten";
    const Reference reference(p);
    Comparison comparison;
    Values actual, expected;
    for (std::int64_t f : sample_rows(p, RowOrder::scattered, p.problem.K * p.problem.N)) {
        if (p.host_routing.left_out(f)) {
            EXPECT_EQ(dgates.at(f), 0) << "entry " << f << " is left out";
            continue;
        }
        actual.push_back(dgates.at(f));
        expected.push_back(reference.dgate(f));
    }
    comparison.add_group(actual, expected);
    EXPECT_TRUE(comparison.within(tolerance(p, dgates)));
}

/// All experts, in the order in which the reference's budget is spent on them: the last that has rows, then from a
/// random one on.
inline std::vector<std::int64_t> experts_to_compare(const workload::Projection& p) {
    std::int64_t last = p.problem.E - 1;
    while (last > 0 && p.idle(last)) --last;
    std::vector<std::int64_t> experts{last};
    const std::int64_t first = fresh("sample").below(0, p.problem.E);
    for (std::int64_t step = 0; step < p.problem.E; ++step) {
        const std::int64_t e = (first + step) % p.problem.E;
        if (e != last) experts.push_back(e);
    }
    return experts;
}

/// dA or dB, whose rows of one expert are `height`.
template <class OfExpert>
void expect_adapter_gradient(const workload::Projection& p, const Array& gradient, std::int64_t height,
                             const OfExpert& of_expert) {
    EXPECT_TRUE(gradient.untouched_outside()) << "bytes between the elements were overwritten";
    std::int64_t affordable = reference_budget / (p.problem.R * (p.problem.K + p.problem.N));
    Comparison comparison;
    Values actual(index(height * gradient.width()));
    for (const std::int64_t e : experts_to_compare(p)) {
        for (std::int64_t r = 0; r < height; ++r) {
            gradient.row(e * height + r, actual.data() + r * gradient.width());
        }
        if (p.idle(e)) {
            EXPECT_TRUE(std::all_of(actual.begin(), actual.end(), [](double value) { return value == 0; }))
                << "expert " << e << " has no rows";
            continue;
        }
        EXPECT_TRUE(std::all_of(actual.begin(), actual.end(), [](double value) { return std::isfinite(value); }))
            << "expert " << e;
        if (affordable <= 0 && comparison.count() > 0) continue;
        affordable -= p.host_routing.end(e) - p.host_routing.begin(e);
        comparison.add_group(actual, of_expert(e));
    }
    EXPECT_TRUE(comparison.within(tolerance(p, gradient)));
}
inline void expect_dA(const workload::Projection& p, const Array& dA) {
    SCOPED_TRACE("dA");
    const Reference reference(p);
    expect_adapter_gradient(p, dA, p.problem.R, [&](std::int64_t e) { return reference.dA(e); });
}
inline void expect_dB(const workload::Projection& p, const Array& dB) {
    SCOPED_TRACE("dB");
    const Reference reference(p);
    expect_adapter_gradient(p, dB, p.problem.N, [&](std::int64_t e) { return reference.dB(e); });
}

}  // namespace smlora::test
