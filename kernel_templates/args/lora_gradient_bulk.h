// Blocking and shared memory of lora_gradient_bulk, for the host that reserves it and the kernel that uses it.
#pragma once

namespace smlora::lora_gradient_bulk {

constexpr int step_rows = 16;  ///< of a stage

struct Blocking {
    int c, r;   ///< columns and ranks that a warp sums at once
    int warps;  ///< that multiply; one more copies
    int stages;
};

constexpr int threads(const Blocking& blocking) { return (blocking.warps + 1) * 32; }

/// Columns of an item.
constexpr int span(const Blocking& blocking) { return blocking.c * blocking.warps; }

/// Where everything begins, in bytes. A stage has 16 rows of SPAN columns, their rank rows and, with gates, their gates
/// as floats.
struct SharedMemory {
    int pitch;        ///< of a stage's row: 32 bytes between rows put those that lanes read together in different banks
    int rank_bytes;   ///< of a rank row
    int stage_ranks;  ///< from the beginning of a stage
    int stage_gates;
    int stage_bytes;
    int barriers;     ///< 2 STAGES x 8: stages filled, then stages emptied
    int prefix;       ///< (E + 1) x 4: chunks before each expert, at least one for each
    int slots;        ///< (E + 1) x 4: see gradient_slots
    int warp_totals;  ///< (WARPS + 1) x 4
    int bytes;        ///< in all
};

/// `rank_stride`: elements of a rank row.
constexpr SharedMemory shared_memory(const Blocking& blocking, int E, int rank_stride, bool gates) {
    SharedMemory memory{};
    memory.pitch = span(blocking) * 2 + 32;
    memory.rank_bytes = rank_stride * 2;
    memory.stage_ranks = step_rows * memory.pitch;
    memory.stage_gates = memory.stage_ranks + step_rows * memory.rank_bytes;
    memory.stage_bytes = memory.stage_gates + (gates ? step_rows * 4 : 0);
    memory.barriers = blocking.stages * memory.stage_bytes;
    memory.prefix = memory.barriers + 2 * blocking.stages * 8;
    memory.slots = memory.prefix + (E + 1) * 4;
    memory.warp_totals = memory.slots + (E + 1) * 4;
    memory.bytes = memory.warp_totals + (blocking.warps + 1) * 4;
    return memory;
}

}  // namespace smlora::lora_gradient_bulk
