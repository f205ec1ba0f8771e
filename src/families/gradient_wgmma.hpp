// Both gradients of an adapter on wgmma, every rank: for sm_90a.
#pragma once

#include "families/family.hpp"

namespace smlora::families {

extern const GradientFamily gradient_wgmma;

}  // namespace smlora::families
