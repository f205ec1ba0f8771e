// Sizes of weights in shared memory, for the host and the kernels.
#pragma once

namespace smlora::weight {

/// Bytes of the weights of one stage in the format Plain.
constexpr int plain_stage_bytes(int columns, int depth) { return columns * depth * 2; }

}  // namespace smlora::weight
