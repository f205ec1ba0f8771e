// The operations by their formulas, in fp64, one row or one expert at a time; slow and obvious.
#pragma once

#include "support/projection.hpp"

#include <vector>

namespace smlora::test {

using Values = std::vector<double>;

class Reference {
 public:
    explicit Reference(const Projection& projection) : in_(projection), p_(projection.problem) {}

    /// scaling * x_i A_e^T, [R].
    [[nodiscard]] Values xa(std::int64_t i) const {
        Values result(index(p_.R));
        const Values x = x_row(i);
        Values a(index(p_.K));
        for (std::int64_t r = 0; r < p_.R; ++r) {
            in_.A.row(expert(i) * p_.R + r, a.data());
            result[index(r)] = scaling() * dot(x, a);
        }
        return result;
    }

    /// x_i W_e + scaling (x_i A_e^T) B_e^T + b_e, [N]; no gate.
    [[nodiscard]] Values y(std::int64_t i) const {
        Values result = product(x_row(i), expert(i), p_.K, p_.N, p_.weight_layout == WeightLayout::ekn);
        if (p_.R > 0) {
            const Values left = xa(i);
            Values b(index(p_.R));
            for (std::int64_t n = 0; n < p_.N; ++n) {
                in_.B.row(expert(i) * p_.N + n, b.data());
                result[index(n)] += dot(left, b);
            }
        }
        if (p_.bias) {
            const Values b = in_.bias.row(expert(i));
            for (std::size_t n = 0; n < result.size(); ++n) result[n] += b[n];
        }
        return result;
    }

    /// scaling * dy_i B_e, [R]; no gate.
    [[nodiscard]] Values yb(std::int64_t i) const {
        Values result(index(p_.R));
        const Values dy = dy_row(i);
        Values b(index(p_.R));
        for (std::int64_t n = 0; n < p_.N; ++n) {
            in_.B.row(expert(i) * p_.N + n, b.data());
            for (std::size_t r = 0; r < result.size(); ++r) result[r] += scaling() * dy[index(n)] * b[r];
        }
        return result;
    }

    /// dy_i W_e^T + scaling (dy_i B_e) A_e, [K]; no gate.
    [[nodiscard]] Values dx(std::int64_t i) const {
        Values result = product(dy_row(i), expert(i), p_.N, p_.K, p_.weight_layout == WeightLayout::enk);
        if (p_.R > 0) {
            const Values left = yb(i);
            Values a(index(p_.K));
            for (std::int64_t r = 0; r < p_.R; ++r) {
                in_.A.row(expert(i) * p_.R + r, a.data());
                for (std::size_t k = 0; k < a.size(); ++k) result[k] += left[index(r)] * a[k];
            }
        }
        return result;
    }

    /// Row r of y or dx as the caller sees it, made of `row_of(i)`: summed over a token's entries, or one row, or zero.
    /// `gated` says whether gates apply to a single row: they do in dx, and y has gates in token order only.
    template <class RowOf>
    [[nodiscard]] Values output_row(RowOrder order, std::int64_t r, std::int64_t width, const RowOf& row_of) const {
        Values sum(index(width));
        const auto add = [&](std::int64_t i) {
            if (i >= in_.host_routing.rows()) return;
            const Values row = row_of(i);
            for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += gate(in_.host_routing.entry(i)) * row[c];
        };
        switch (order) {
            case RowOrder::grouped:
                add(r);
                break;
            case RowOrder::scattered:
                add(in_.host_routing.position_of(r));
                break;
            case RowOrder::token:
                for (std::int64_t j = 0; j < p_.top_k; ++j) add(in_.host_routing.position_of(r * p_.top_k + j));
                break;
        }
        return sum;
    }
    [[nodiscard]] Values y_output(std::int64_t r) const {
        return output_row(p_.y_rows, r, p_.N, [this](std::int64_t i) { return y(i); });
    }
    [[nodiscard]] Values dx_output(std::int64_t r) const {
        return output_row(p_.x_rows, r, p_.K, [this](std::int64_t i) { return dx(i); });
    }

    /// <dy_t, y_f>: the definition; 0 for entries left out.
    [[nodiscard]] double dgate(std::int64_t f) const {
        const std::int64_t i = in_.host_routing.position_of(f);
        return i >= in_.host_routing.rows() ? 0 : dot(dy_row(i), y(i));
    }

    /// [R, K] of one expert.
    [[nodiscard]] Values dA(std::int64_t e) const {
        Values result(index(p_.R * p_.K));
        for (std::int64_t i = in_.host_routing.begin(e); i < in_.host_routing.end(e); ++i) {
            const Values left = yb(i), x = x_row(i);
            add_outer_product(gate(in_.host_routing.entry(i)), left, x, result);
        }
        return result;
    }

    /// [N, R] of one expert.
    [[nodiscard]] Values dB(std::int64_t e) const {
        Values result(index(p_.N * p_.R));
        for (std::int64_t i = in_.host_routing.begin(e); i < in_.host_routing.end(e); ++i) {
            const Values dy = dy_row(i), right = xa(i);
            add_outer_product(gate(in_.host_routing.entry(i)), dy, right, result);
        }
        return result;
    }

    [[nodiscard]] Values x_row(std::int64_t i) const { return in_.x.row(row_in(p_.x_rows, i)); }
    [[nodiscard]] Values dy_row(std::int64_t i) const { return in_.dy.row(row_in(p_.y_rows, i)); }
    [[nodiscard]] double gate(std::int64_t f) const { return p_.gates ? in_.gates.at(f) : 1; }

 private:
    [[nodiscard]] double scaling() const { return static_cast<double>(in_.spec.scaling); }
    [[nodiscard]] std::int64_t expert(std::int64_t i) const { return in_.host_routing.expert(i); }
    [[nodiscard]] std::int64_t row_in(RowOrder order, std::int64_t i) const {
        const std::int64_t f = in_.host_routing.entry(i);
        return order == RowOrder::grouped ? i : order == RowOrder::scattered ? f : f / p_.top_k;
    }

    static double dot(const Values& a, const Values& b) {
        double sum = 0;
        for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
        return sum;
    }
    static void add_outer_product(double coefficient, const Values& column, const Values& row, Values& target) {
        for (std::size_t i = 0; i < column.size(); ++i) {
            for (std::size_t j = 0; j < row.size(); ++j) target[i * row.size() + j] += coefficient * column[i] * row[j];
        }
    }
    /// left [inner] times the matrix of expert e: stored [inner, outer] if inner_first, else [outer, inner].
    [[nodiscard]] Values product(const Values& left, std::int64_t e, std::int64_t inner, std::int64_t outer,
                                 bool inner_first) const {
        Values result(index(outer)), row(index(inner_first ? outer : inner));
        for (std::int64_t r = 0; r < (inner_first ? inner : outer); ++r) {
            in_.W.row(e * (inner_first ? inner : outer) + r, row.data());
            if (inner_first) {
                for (std::size_t c = 0; c < row.size(); ++c) result[c] += left[index(r)] * row[c];
            } else {
                result[index(r)] = dot(left, row);
            }
        }
        return result;
    }

    const Projection& in_;
    const Problem& p_;
};

}  // namespace smlora::test
