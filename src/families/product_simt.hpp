// The grouped product without tensor cores: for fp32, and for rows that are not 16-byte aligned.
#pragma once

#include "families/product.hpp"
#include "families/step.hpp"

namespace smlora::families {

[[nodiscard]] Step product_simt_step(const ProductWork& work);

}  // namespace smlora::families
