// The grouped product on Hopper's tensor cores: operands swapped, rank rows made on the way where that is chosen.
#pragma once

#include "families/family.hpp"

namespace smlora::families {

extern const ProductFamily product_wgmma;

}  // namespace smlora::families
