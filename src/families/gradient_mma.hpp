// Both gradients of an adapter on mma.sync, for every GPU that smlora runs on.
#pragma once

#include "families/family.hpp"

namespace smlora::families {

extern const GradientFamily gradient_mma;

}  // namespace smlora::families
