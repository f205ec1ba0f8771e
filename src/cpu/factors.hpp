// The weights of a projection and of its adapter as factors of the four products that read them.
#pragma once

#include "cpu/product.hpp"

#include <smlora/problem.hpp>

namespace smlora::cpu {

/// x_i W_e: k runs over K, columns over N.
template <class Acc>
ExpertFactor<Acc> weight(const Problem& problem, const Tensor& W) {
    return problem.weight_layout == WeightLayout::ekn ? expert_matrix<Acc>(W, 2, 1) : expert_matrix<Acc>(W, 1, 2);
}

/// dy_i W_e^T: k runs over N, columns over K.
template <class Acc>
ExpertFactor<Acc> weight_transposed(const Problem& problem, const Tensor& W) {
    return problem.weight_layout == WeightLayout::ekn ? expert_matrix<Acc>(W, 1, 2) : expert_matrix<Acc>(W, 2, 1);
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
