// Both gradients of an adapter on wgmma, for ranks from 24 on: for sm_90a.
#pragma once

#include "families/family.hpp"

namespace smlora::families {

extern const GradientFamily gradient_wgmma;

}  // namespace smlora::families
