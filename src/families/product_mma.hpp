// The grouped product on mma.sync: rows on the m side, for every GPU that smlora runs on.
#pragma once

#include "families/family.hpp"

namespace smlora::families {

extern const ProductFamily product_mma;

}  // namespace smlora::families
