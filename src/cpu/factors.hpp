// The weights of a projection and of its adapter as factors of the four products that read them.
#pragma once

#include "cpu/product.hpp"

#include <smlora/problem.hpp>
#include <smlora/weight.hpp>

#include <memory>

namespace smlora::cpu {

/// W with the columns of the product along its rows as they are stored, or along their columns.
template <class Acc>
ExpertFactor<Acc> weight_factor(const Problem& problem, const Weight& W, bool outer_rows) {
    if (W.encoding == Encoding::plain) return expert_matrix<Acc>(W.codes, outer_rows ? 1 : 2, outer_rows ? 2 : 1);
    return {.factor = {}, .encoded = std::make_shared<EncodedMatrix>(W, problem.dtype, outer_rows)};
}

/// x_i W_e: k runs over K, columns over N.
template <class Acc>
ExpertFactor<Acc> weight(const Problem& problem, const Weight& W) {
    return weight_factor<Acc>(problem, W, problem.weight_layout == WeightLayout::enk);
}

/// dy_i W_e^T: k runs over N, columns over K.
template <class Acc>
ExpertFactor<Acc> weight_transposed(const Problem& problem, const Weight& W) {
    return weight_factor<Acc>(problem, W, problem.weight_layout == WeightLayout::ekn);
}

/// x_i A_e^T: k runs over K, columns over R.
template <class Acc>
RowProduct<Acc> xa_product(const Problem& problem, const Factor<Acc>& x, const Tensor& A) {
    return {x, expert_matrix<Acc>(A, 1, 2), problem.K};
}

/// dy_i B_e: k runs over N, columns over R.
template <class Acc>
RowProduct<Acc> yb_product(const Problem& problem, const Factor<Acc>& dy, const Tensor& B) {
    return {dy, expert_matrix<Acc>(B, 2, 1), problem.N};
}

}  // namespace smlora::cpu
