// Blocking and shared memory of lora_gradient_mma, for the host that reserves it and the kernel that uses it.
#pragma once

namespace smlora::lora_gradient_mma {

/// A block's tile and its pipeline.
struct Blocking {
    int c, r, k;  ///< columns of the wide operand, ranks, rows of a stage
    int warps;
    int stages;
};

constexpr int threads(const Blocking& blocking) { return blocking.warps * 32; }

/// Floats from one rank's sums to the next in the staging: four more than there are keep its columns off one bank.
constexpr int staging_pitch(const Blocking& blocking) { return blocking.c + 4; }

/// Where everything begins, in bytes. A stage has K x C of the wide operand, then K x R ranks, 2 bytes each, 16-byte
/// chunks swizzled.
struct SharedMemory {
    int stage_ranks;  ///< from the beginning of a stage
    int stage_bytes;
    int staging;      ///< R x (C + 4) x 4: the piece's sums on their way out
    int prefix;       ///< (E + 1) x 4: chunks before each expert, at least one for each
    int slots;        ///< (E + 1) x 4: see gradient_slots
    int warp_totals;  ///< WARPS x 4
    int bytes;        ///< in all
};

constexpr SharedMemory shared_memory(const Blocking& blocking, int E) {
    SharedMemory memory{};
    memory.stage_ranks = blocking.k * blocking.c * 2;
    memory.stage_bytes = memory.stage_ranks + blocking.k * blocking.r * 2;
    memory.staging = blocking.stages * memory.stage_bytes;
    memory.prefix = memory.staging + blocking.r * staging_pitch(blocking) * 4;
    memory.slots = memory.prefix + (E + 1) * 4;
    memory.warp_totals = memory.slots + (E + 1) * 4;
    memory.bytes = memory.warp_totals + blocking.warps * 4;
    return memory;
}

}  // namespace smlora::lora_gradient_mma
