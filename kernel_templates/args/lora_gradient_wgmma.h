// Blocking and shared memory of lora_gradient_wgmma, for the host that reserves it and the kernel that uses it.
#pragma once

#include "args/integers.h"

namespace smlora::lora_gradient_wgmma {

constexpr int warpgroups = 2;  ///< that multiply; one more copies
constexpr int threads = (warpgroups + 1) * 128;
constexpr int block_columns = 64;  ///< and ranks: 128 bytes of a row

struct Blocking {
    int blocks;     ///< of 64 columns that a warpgroup sums at once
    int step_rows;  ///< of a stage, a multiple of 16
    int stages;
};

/// Blocks times ranks that a warpgroup can sum: half as many registers of a thread.
constexpr int most_sums = 256;

/// Columns of an item.
constexpr int span(const Blocking& blocking) { return warpgroups * blocking.blocks * block_columns; }

/// Ranks of the first of two instructions over all of them; the second has the rest.
constexpr int first_ranks(int ranks) { return least_of(ranks, 128); }

/// Items that a block has taken and not done: one for each stage, one that is looked up and one that is multiplied.
constexpr int taken_items(int stages) { return stages + 2; }
constexpr int item_bytes = 32;

/// Where everything begins, in bytes. A stage has, of `step_rows` rows each, blocks of 64 columns of the wide operand
/// and then of 64 ranks, with the chunks of a row swizzled over 128 bytes.
struct SharedMemory {
    int block_bytes;
    int stage_ranks;  ///< from the beginning of a stage
    int stage_bytes;
    int barriers;     ///< 2 STAGES x 8: stages filled, then stages emptied
    int items;        ///< taken_items(STAGES) x item_bytes
    int turns;        ///< 2 x 4: the number of the next item, told to the warps that copy
    int prefix;       ///< (E + 1) x 4: chunks before each expert, at least one for each
    int slots;        ///< (E + 1) x 4: see gradient_slots
    int warp_totals;  ///< threads / 32 x 4
    int bytes;        ///< in all
};

/// `ranks`: elements of a rank row.
constexpr SharedMemory shared_memory(const Blocking& blocking, int E, int ranks) {
    SharedMemory memory{};
    memory.block_bytes = blocking.step_rows * block_columns * 2;
    memory.stage_ranks = warpgroups * blocking.blocks * memory.block_bytes;
    memory.stage_bytes = memory.stage_ranks + ceil_div(ranks, block_columns) * memory.block_bytes;
    memory.barriers = blocking.stages * memory.stage_bytes;
    memory.items = memory.barriers + 2 * blocking.stages * 8;
    memory.turns = memory.items + taken_items(blocking.stages) * item_bytes;
    memory.prefix = memory.turns + 2 * 4;
    memory.slots = memory.prefix + (E + 1) * 4;
    memory.warp_totals = memory.slots + (E + 1) * 4;
    memory.bytes = memory.warp_totals + threads / 32 * 4;
    return memory;
}

}  // namespace smlora::lora_gradient_wgmma
