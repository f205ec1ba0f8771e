#include "workload/reference.hpp"

namespace smlora::workload {
namespace {

double dot(const double* a, const double* b, std::int64_t count) {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

/// left [rows] times a matrix [rows, columns].
Values times(const Values& left, const double* matrix, std::int64_t columns) {
    Values result(index(columns));
    in_parallel(columns, static_cast<std::int64_t>(left.size()), [&](std::int64_t begin, std::int64_t end) {
        for (std::size_t r = 0; r < left.size(); ++r) {
            const double* row = matrix + static_cast<std::int64_t>(r) * columns;
            for (std::int64_t c = begin; c < end; ++c) result[index(c)] += left[r] * row[c];
        }
    });
    return result;
}

/// left [columns] times the transpose of a matrix [rows, columns].
Values times_transposed(const Values& left, const double* matrix, std::int64_t rows) {
    const auto columns = static_cast<std::int64_t>(left.size());
    Values result(index(rows));
    in_parallel(rows, columns, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) result[index(r)] = dot(left.data(), matrix + r * columns, columns);
    });
    return result;
}

void add(Values& sum, const Values& part) {
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
}

void scale(Values& values, double factor) {
    for (double& value : values) value *= factor;
}

void add_outer_product(double coefficient, const Values& column, const Values& row, Values& target) {
    const auto width = static_cast<std::int64_t>(row.size());
    in_parallel(static_cast<std::int64_t>(column.size()), width, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            double* const to = target.data() + i * width;
            for (std::size_t j = 0; j < row.size(); ++j) to[j] += coefficient * column[index(i)] * row[j];
        }
    });
}

}  // namespace

Values Reference::xa(std::int64_t i) const {
    Values result = times_transposed(x_row(i), A(expert(i)), p_.R);
    scale(result, scaling());
    return result;
}

Values Reference::base(std::int64_t i) const {
    const Values x = x_row(i);
    Values result =
        p_.weight_layout == WeightLayout::ekn ? times(x, W(expert(i)), p_.N) : times_transposed(x, W(expert(i)), p_.N);
    if (p_.bias) add(result, in_.bias.row(expert(i)));
    return result;
}

Values Reference::y(std::int64_t i) const {
    Values result = base(i);
    if (p_.R > 0) add(result, times_transposed(xa(i), B(expert(i)), p_.N));
    return result;
}

Values Reference::yb(std::int64_t i) const {
    Values result = times(dy_row(i), B(expert(i)), p_.R);
    scale(result, scaling());
    return result;
}

Values Reference::dx(std::int64_t i) const {
    const Values dy = dy_row(i);
    Values result = p_.weight_layout == WeightLayout::enk ? times(dy, W(expert(i)), p_.K)
                                                          : times_transposed(dy, W(expert(i)), p_.K);
    if (p_.R > 0) add(result, times(yb(i), A(expert(i)), p_.K));
    return result;
}

double Reference::dgate_of(std::int64_t i) const { return dot(dy_row(i).data(), y(i).data(), p_.N); }

double Reference::dgate(std::int64_t f) const {
    const std::int64_t i = in_.host_routing.position_of(f);
    return i >= in_.host_routing.rows() ? 0 : dgate_of(i);
}

Values Reference::dA(std::int64_t e) const {
    Values result(index(p_.R * p_.K));
    for (std::int64_t i = in_.host_routing.begin(e); i < in_.host_routing.end(e); ++i) {
        add_outer_product(gate(in_.host_routing.entry(i)), yb(i), x_row(i), result);
    }
    return result;
}

Values Reference::dB(std::int64_t e) const {
    Values result(index(p_.N * p_.R));
    for (std::int64_t i = in_.host_routing.begin(e); i < in_.host_routing.end(e); ++i) {
        add_outer_product(gate(in_.host_routing.entry(i)), dy_row(i), xa(i), result);
    }
    return result;
}

const double* Reference::matrix(Matrix& kept, const Array& array, std::int64_t height, std::int64_t e) const {
    if (kept.expert != e) kept = {e, array.read(e * height, height)};
    return kept.values.data();
}

const double* Reference::W(std::int64_t e) const {
    return matrix(W_, in_.W, p_.weight_layout == WeightLayout::ekn ? p_.K : p_.N, e);
}

}  // namespace smlora::workload
