// The operations by their formulas, in fp64, one row or one expert at a time; slow and obvious. What the operations of
// both backends are compared with, in the tests and by smlora-tune verify.
#pragma once

#include "workload/projection.hpp"

#include <cstdint>

namespace smlora::workload {

/// Of sorted position i, unless it says otherwise: x_i and dy_i are the rows that it reads, e its expert, g its gate.
/// Keeps the matrices of the expert that it was asked for last, so going from expert to expert is fast, and one of them
/// serves one thread.
class Reference {
 public:
    explicit Reference(const Projection& projection) : in_(projection), p_(projection.problem) {}

    /// scaling * x_i A_e^T, [R].
    [[nodiscard]] Values xa(std::int64_t i) const;
    /// x_i W_e + b_e, [N]; no adapter, no gate.
    [[nodiscard]] Values base(std::int64_t i) const;
    /// x_i W_e + scaling (x_i A_e^T) B_e^T + b_e, [N]; no gate.
    [[nodiscard]] Values y(std::int64_t i) const;
    /// scaling * dy_i B_e, [R]; no gate.
    [[nodiscard]] Values yb(std::int64_t i) const;
    /// dy_i W_e^T + scaling (dy_i B_e) A_e, [K]; no gate.
    [[nodiscard]] Values dx(std::int64_t i) const;
    /// <dy_i, y_i>: the gradient of the gate by its definition.
    [[nodiscard]] double dgate_of(std::int64_t i) const;
    /// That of a flat entry; 0 for entries left out.
    [[nodiscard]] double dgate(std::int64_t f) const;

    /// Row r of y or dx as the caller sees it, made of `row_of(i)`: summed over a token's entries, or one row, or zero;
    /// each row times its gate.
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

    /// sum of g yb_i^T x_i over the rows of an expert, [R, K].
    [[nodiscard]] Values dA(std::int64_t e) const;
    /// sum of g dy_i^T xa_i over the rows of an expert, [N, R].
    [[nodiscard]] Values dB(std::int64_t e) const;

    [[nodiscard]] Values x_row(std::int64_t i) const { return in_.x.row(in_.row_in(p_.x_rows, i)); }
    [[nodiscard]] Values dy_row(std::int64_t i) const { return in_.dy.row(in_.row_in(p_.y_rows, i)); }
    /// Of a flat entry; 1 without gates.
    [[nodiscard]] double gate(std::int64_t f) const { return p_.gates ? in_.gates.at(f) : 1; }

 private:
    /// One expert's part of a tensor.
    struct Matrix {
        std::int64_t expert = -1;
        Values values;
    };
    [[nodiscard]] const double* matrix(Matrix& kept, const Array& array, std::int64_t height, std::int64_t e) const;
    [[nodiscard]] const double* W(std::int64_t e) const;
    [[nodiscard]] const double* A(std::int64_t e) const { return matrix(A_, in_.A, p_.R, e); }
    [[nodiscard]] const double* B(std::int64_t e) const { return matrix(B_, in_.B, p_.N, e); }
    [[nodiscard]] std::int64_t expert(std::int64_t i) const { return in_.host_routing.expert(i); }
    [[nodiscard]] double scaling() const { return static_cast<double>(in_.spec.scaling); }

    const Projection& in_;
    const Problem& p_;
    mutable Matrix W_, A_, B_;
};

}  // namespace smlora::workload
