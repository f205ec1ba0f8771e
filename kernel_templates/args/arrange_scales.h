// Arguments of arrange_scales, shared by the host and the kernel.
#pragma once

#include "args/packed_weight.h"

namespace smlora {

/// out[e, i, j, 2 r + h] = scales[e, 64 i + r, 2 j + h], and 0 where there is none: see args/packed_weight.h. *largest
/// becomes the largest of all scales and what it was.
///
/// Launch: 256 threads, no dynamic shared memory; any grid is right, a thread at a time takes the two scales of a row
/// in a block:
///     grid = min(ceil(E * scale_blocks(ROWS) * scale_blocks(COLUMNS) * 64 / 256), resident blocks)
struct ArrangeScalesKernelArgs {
    const void* scales;  ///< [E, ROWS, COLUMNS / 32]
    void* out;           ///< 16-byte aligned
    unsigned* largest;
    int E;
};

}  // namespace smlora
