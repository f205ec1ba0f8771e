// Blocking and shared memory of grouped_product_mma, for the host that reserves it and the kernel that uses it.
#pragma once

#include "args/integers.h"

namespace smlora::grouped_product_mma {

/// A block's tile and its pipeline.
struct Blocking {
    int m, n, k;  ///< rows, outputs, depth of a stage
    int warps_m, warps_n;
    int stages;
};

constexpr int warps(const Blocking& blocking) { return blocking.warps_m * blocking.warps_n; }
constexpr int threads(const Blocking& blocking) { return warps(blocking) * 32; }

/// Where everything begins, in bytes. A stage has M x K rows, then the weights, 16-byte chunks swizzled. Weights that
/// are decoded have two places behind the stages, for the values of a step and of the next one. The output tile takes
/// the place of the stages at the end.
struct SharedMemory {
    int stage_weights;  ///< from the beginning of a stage
    int stage_bytes;
    int values;       ///< two times `value_bytes`
    int row_flat;     ///< M x 4: flat entry of each row of the tile; rows past its end repeat the first
    int prefix;       ///< (E + 2) x 4: row tiles before each expert; group E is the entries left out
    int warp_totals;  ///< WARPS x 4
    int bytes;        ///< in all
};

/// `weight_bytes`: of the weights of a stage. `value_bytes`: of what they are decoded to, or 0.
constexpr SharedMemory shared_memory(const Blocking& blocking, int E, int weight_bytes, int value_bytes = 0) {
    SharedMemory memory{};
    memory.stage_weights = blocking.m * blocking.k * 2;
    memory.stage_bytes = memory.stage_weights + weight_bytes;
    memory.values = blocking.stages * memory.stage_bytes;
    memory.row_flat = greatest_of(memory.values + 2 * value_bytes, blocking.m * blocking.n * 2);
    memory.prefix = memory.row_flat + blocking.m * 4;
    memory.warp_totals = memory.prefix + (E + 2) * 4;
    memory.bytes = memory.warp_totals + warps(blocking) * 4;
    return memory;
}

}  // namespace smlora::grouped_product_mma
