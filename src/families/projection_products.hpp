// The grouped products that a projection's operations are made of.
#pragma once

#include "families/product_step.hpp"
#include "plan/plan.hpp"

namespace smlora::families {

/// y_i = x_i W_e + xa_i B_e^T + b_e.
[[nodiscard]] ProductKernel forward_product(const Problem& problem);

/// dx_i = g_f (dy_i W_e^T + yb_i A_e), the gate left to who comes after where the variant has somebody.
[[nodiscard]] ProductKernel dx_product(const Problem& problem, const plan::Variant& variant);

/// xa_i = scaling x_i A_e^T, A packed or direct as [E, padded rank, K].
[[nodiscard]] ProductKernel xa_product(const Problem& problem);

/// yb_i = scaling dy_i B_e, B packed or direct as [E, N, padded rank].
[[nodiscard]] ProductKernel yb_product(const Problem& problem);

}  // namespace smlora::families
