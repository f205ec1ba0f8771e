// Both gradients of an adapter with operands that bulk copies bring: for sm_90 and later.
#pragma once

#include "families/family.hpp"

namespace smlora::families {

extern const GradientFamily gradient_bulk;

}  // namespace smlora::families
