// The plain grouped product, one thread an output: slow and obvious, to check the others against.
#pragma once

#include "families/product.hpp"
#include "families/step.hpp"

namespace smlora::families {

/// Takes the arguments of the steps that it checks.
[[nodiscard]] Step product_reference_step(const ProductWork& work);

}  // namespace smlora::families
