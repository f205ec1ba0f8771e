// Pieces and shared memory of lora_gradient_reduce, for the host and the kernel.
#pragma once

#include "args/integers.h"

namespace smlora::lora_gradient_reduce {

constexpr int block_threads = 256;
constexpr int own_ranks = 4;  ///< of one column, that a thread adds up

/// Pieces that the sums of one gradient of an expert, WIDE x RANK, are cut into: a block's each.
constexpr int pieces(int wide, int rank) { return ceil_div(rank, own_ranks) * ceil_div(wide, block_threads); }

/// Where everything begins, in bytes.
struct SharedMemory {
    int slots;        ///< (E + 1) x 4: see gradient_slots
    int order;        ///< (E + 1) x 4: experts with several chunks before each expert
    int warp_totals;  ///< WARPS x 4
    int bytes;        ///< in all
};

constexpr SharedMemory shared_memory(int E) {
    SharedMemory memory{};
    memory.order = memory.slots + (E + 1) * 4;
    memory.warp_totals = memory.order + (E + 1) * 4;
    memory.bytes = memory.warp_totals + block_threads / 32 * 4;
    return memory;
}

}  // namespace smlora::lora_gradient_reduce
