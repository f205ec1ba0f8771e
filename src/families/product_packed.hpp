// Grouped products that decode packed weights where they multiply them: grouped_product_packed.cuh.
#pragma once

#include "families/family.hpp"
#include "families/step.hpp"

#include <smlora/problem.hpp>

#include <cstdint>

namespace smlora::families {

extern const ProductFamily product_packed;

/// Whether the family knows weights of this format, for products of this type.
[[nodiscard]] bool can_multiply_codes(const Problem& problem);

/// Whether the product takes rows whose columns are permuted, see permute_step.
[[nodiscard]] bool takes_permuted_rows(const Product& product);

/// Permutes rows of so many columns, a multiple of 32: row of a product, for its weights' order.
[[nodiscard]] Step permute_step(const Problem& problem, std::int64_t columns);

}  // namespace smlora::families
