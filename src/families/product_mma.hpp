// The grouped products on mma.sync, of plain weights and of codes: rows on the m side, for every GPU that smlora runs
// on.
#pragma once

#include "families/family.hpp"

namespace smlora::families {

extern const ProductFamily product_mma;
extern const ProductFamily product_mma_packed;

}  // namespace smlora::families
