// Arguments of arrange_scales, shared by the host and the kernel.
#pragma once

#include "args/packed_weight.h"

namespace smlora {

/// The scales in the order of args/packed_weight.h, and 0 where there is none. *largest becomes the largest of all
/// scales of bytes and what it was.
///
/// Launch: 256 threads, no dynamic shared memory; any grid is right, a thread at a time takes the scales of a row in a
/// block:
///     grid = min(ceil(E * scale_blocks(ROWS) * scale_blocks(COLUMNS) * 64 / 256), resident blocks)
struct ArrangeScalesKernelArgs {
    const void* scales;  ///< [E, ROWS, COLUMNS / BLOCK]
    void* out;           ///< 16-byte aligned
    unsigned* largest;
    int E;
};

}  // namespace smlora
