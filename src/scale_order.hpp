// In which order products that decode weights of a format take their scales.
#pragma once

#include "args/packed_weight.h"

#include <smlora/encoding.hpp>

namespace smlora {

/// in_row is 0 where there is none.
[[nodiscard]] constexpr weight::ScaleOrder scale_order(const WeightFormat& format) {
    return weight::scale_order(static_cast<int>(format.encoding), format.block);
}

}  // namespace smlora
