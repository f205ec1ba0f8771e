// The format of weights that are stored in the products' own type.
//
// A format is a type, C::Weight, that says how many bytes a stage takes, and one specialisation for each way of
// multiplying, which copies a stage and brings it to the multiplier:
//   weight/mma.cuh     copies with cp.async, loads fragments into registers
//   weight/wgmma.cuh   copies by TMA, multiplies out of shared memory
//   weight/simt.cuh    reads elements as floats
// A format with scales or packed codes has them in its stage beside the codes, and decodes where it loads fragments,
// multiplies or reads. Adapters are always Plain.
#pragma once

#include "args/weight.h"

namespace smlora::weight {

struct Plain {
    static constexpr int stage_bytes(int columns, int depth) { return plain_stage_bytes(columns, depth); }
};

}  // namespace smlora::weight
