// How the memory-bound kernels cut a row into segments, for the host that sizes the grid and the kernels.
#pragma once

#include "args/integers.h"

namespace smlora {

struct RowSegments {
    int unroll;  ///< units of a lane in one segment
    int count;   ///< of a row
};

/// A row of `units` units in segments of 32 lanes x `unroll` units, of `most_unroll` or fewer: as few segments as there
/// can be, and of those the shortest, so that none is much emptier than the others.
constexpr RowSegments row_segments(int units, int most_unroll) {
    const int count = greatest_of(1, ceil_div(units, 32 * most_unroll));
    return {greatest_of(1, ceil_div(units, 32 * count)), count};
}

}  // namespace smlora
