// How the memory-bound kernels cut a row into segments, for the host that sizes the grid and the kernels.
#pragma once

#include "args/integers.h"

namespace smlora {

struct RowSegments {
    int unroll;  ///< units of a lane in one segment
    int count;   ///< of a row
};

/// A row of `units` units in segments of 32 lanes x `unroll` units: `wanted_unroll`, or fewer if the row has fewer.
constexpr RowSegments row_segments(int units, int wanted_unroll) {
    const int unroll = greatest_of(1, least_of(ceil_div(units, 32), wanted_unroll));
    return {unroll, ceil_div(units, 32 * unroll)};
}

}  // namespace smlora
