// The pieces of work of a request as kernel families take them.
#pragma once

#include "families/gradients.hpp"
#include "families/product.hpp"
#include "plan/plan.hpp"
#include "plan/request.hpp"

#include <smlora/problem.hpp>

#include <optional>

namespace smlora::plan {

/// The rank rows that the product of a request reads: xa for forward, yb for dX; nothing without a product.
[[nodiscard]] std::optional<Role> rank_role(const Request& request);

/// `role`: product, of forward or backward_input; else xa or yb.
[[nodiscard]] families::ProductWork product_work(const Problem& problem, const Request& request, Role role);

[[nodiscard]] families::GradientWork gradient_work(const Problem& problem, const BackwardLora& request);

}  // namespace smlora::plan
