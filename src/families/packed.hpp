// What the rest of the library knows of products that decode packed weights where they multiply them.
#pragma once

#include "families/product.hpp"
#include "families/step.hpp"

#include <smlora/problem.hpp>

#include <cstdint>

namespace smlora::families {

/// Whether there are such products for weights of this format and rows of this type, on some GPU.
[[nodiscard]] bool can_multiply_codes(const Problem& problem);

/// Whether the product takes rows whose columns are permuted, see permute_step.
[[nodiscard]] bool takes_permuted_rows(const Product& product);

/// Permutes rows of so many columns, a multiple of 32, into the order in which such products take them.
[[nodiscard]] Step permute_step(const Problem& problem, std::int64_t columns);

}  // namespace smlora::families
