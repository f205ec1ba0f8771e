// Arguments of arrange_scales, shared by the host and the kernel.
#pragma once

#include "args/packed_weight.h"
#include "args/unpack_weights.h"

namespace smlora {

/// What arrange_scales finds that products have no room for.
struct ArrangeFindings {
    unsigned largest;        ///< of all scales that are bytes
    unsigned without_split;  ///< blocks whose factor has none
    unsigned nan_scales;     ///< nvfp4
    unsigned nan_codes;      ///< of e4m3, or as many words with such codes
};

/// The scales in the order of args/packed_weight.h, and 0 where there is none. *findings becomes what was found and
/// what it was.
///
/// Launch: 256 threads, no dynamic shared memory; any grid is right, a thread at a time takes the scales of a row in a
/// block, and words of codes:
///     grid = min(ceil(E * scale_blocks(ROWS) * scale_blocks(COLUMNS) * 64 / 256), resident blocks)
struct ArrangeScalesKernelArgs {
    UnpackWeightsArgs weight;  ///< codes, scales and what belongs to them
    void* out;                 ///< 16-byte aligned
    ArrangeFindings* findings;
    int E;
};

}  // namespace smlora
