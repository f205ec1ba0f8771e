// Grouped products that decode packed weights where they multiply them: grouped_product_packed.cuh.
#pragma once

#include "families/family.hpp"

namespace smlora::families {

extern const ProductFamily product_packed;

}  // namespace smlora::families
