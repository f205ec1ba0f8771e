// Arguments, blocking and shared memory of the grouped product on wgmma, shared by the host and the kernel.
#pragma once

#include "args/grouped_product.h"
#include "args/integers.h"
#include "args/tensor_map.h"

namespace smlora {

/// A map's box is what one copy brings to shared memory: weight/wgmma.cuh and SharedMemory below.
struct GroupedProductWgmmaArgs {
    TensorMap weight_map;        ///< [E, RED, OUT] or [E, OUT, RED], the last contiguous
    TensorMap lora_weight_map;   ///< [E, RANK, OUT] or [E, OUT, RANK]; RANK > 0
    TensorMap lora_rows_map;     ///< [1, M, RANK] of product.lora_rows; RANK > 0
    TensorMap rank_map;          ///< [E, RED, RANK] or [E, RANK, RED]: makes the rank rows; MAKES_RANK_ROWS
    GroupedProductArgs product;  ///< its scale is 1
    void* rank_rows;             ///< [M, RANK], written: rank_scale (row(i) rank_matrix_e); MAKES_RANK_ROWS
    float rank_scale;
    int experts_ahead;  ///< MAKES_RANK_ROWS: so many experts have their first column tiles before the others of as many
                        ///< experts before them; > 0
    unsigned* progress;  ///< zeros: items taken, then a flag for each row tile, set when its rank rows are written
};

namespace grouped_product_wgmma {

/// Depth of a step of the reduction: 128 bytes, a row of the widest swizzle.
constexpr int step_depth = 64;

/// Columns of the tile, two m64 for each of the two warpgroups that multiply.
constexpr int tile_columns = 256;

/// Rows of the output that are staged together.
constexpr int slot_rows = 16;

/// Tiles in shared memory at once: the one that is worked on and the next one.
constexpr unsigned tile_slots = 2;

/// Of a Tile, in shared memory.
constexpr unsigned tile_bytes = 32;

/// One of each kind: copies, stores; the two others multiply.
constexpr int warpgroups = 4;
constexpr int block_threads = warpgroups * 128;

struct Blocking {
    int tile_rows;  ///< at most
    int stages;
    int staging_rows;  ///< of the output, on their way to memory
    int cluster;
    bool makes_rank_rows;
};

/// The height that a tile of `rows` rows is multiplied with: a multiple of `row_step`, of 16 up to 96 rows, where 8 are
/// not worth an instruction of their own to compile.
constexpr int whole_height(int rows, int row_step) { return round_up(rows, rows > 96 ? row_step : 16); }

/// Depth of one step over the rank: what wgmma and the swizzles allow.
constexpr int rank_depth(int rank) { return rank <= 16 ? 16 : rank <= 32 ? 32 : 64; }

/// Steps over the rank.
constexpr int lora_steps(int rank) { return rank > 0 ? ceil_div(rank, rank_depth(rank)) : 0; }

/// Slots that the output passes through.
constexpr int staging_slots(const Blocking& blocking) { return blocking.staging_rows / slot_rows; }

/// Two for each stage and each slot of the staging, one for the staging as a whole, two for each announced tile and two
/// for the cluster's next item.
constexpr int barrier_count(const Blocking& blocking) {
    return 2 * blocking.stages + 2 * staging_slots(blocking) + 1 + 2 * static_cast<int>(tile_slots) + 2;
}

/// Where everything begins, in bytes; whatever TMA or wgmma reads is aligned to 1024.
///
/// A stage has weights [tile_columns x 64], then rows [TILE_ROWS x 64] and, with MAKES_RANK_ROWS, the rank matrix
/// [rank_depth x 64] and nothing up to 64 rows beside the weights; 2 bytes each, swizzled in units of 128 bytes (the
/// rank matrix by its pitch).
///
/// The staging has slots of [16 rows x 256 columns], 2 bytes each, 16-byte chunks swizzled: the output tile on its way
/// out. Between two tiles' outputs it has the adapter's operands, weights [tile_columns x rank_depth], then rank rows
/// [TILE_ROWS x rank_depth]. An adapter too large for that takes a stage's place, step by step, all but the rank rows
/// that are made here.
struct SharedMemory {
    unsigned weight_bytes;  ///< of a stage
    unsigned rows_bytes;
    unsigned rank_bytes;
    unsigned stage_bytes;
    unsigned staging;
    unsigned staging_bytes;
    unsigned lora_weight_bytes;
    unsigned lora_rows_bytes;
    /// Whether the adapter lies in the staging; else its steps go through the pipeline like those of the reduction, as
    /// they do where a cluster's blocks would wait for each other's staging for nothing else.
    bool lora_beside;
    unsigned rank_rows;    ///< in the staging
    unsigned tiles;        ///< tile_slots x tile_bytes
    unsigned item;         ///< 8: the cluster's next item, as its first block tells it to the other
    unsigned barriers;     ///< barrier_count x 8
    unsigned out_rows;     ///< TILE_ROWS x 4: where each row of the tile that is stored begins, in units of 16 bytes
    unsigned prefix;       ///< (E + 2) x 4: row tiles before each expert; group E is the entries left out
    unsigned warp_totals;  ///< 16 x 4
    unsigned bytes;        ///< in all
};

/// `weight_bytes`: of the weights of a stage. `rank`: padded; 0: no adapter.
constexpr SharedMemory shared_memory(const Blocking& blocking, int E, int weight_bytes, int rank) {
    const auto bytes_of = [](int rows, int columns) { return static_cast<unsigned>(rows * columns * 2); };
    const int depth = rank_depth(rank);
    SharedMemory memory{};
    memory.weight_bytes = static_cast<unsigned>(weight_bytes);
    memory.rows_bytes = bytes_of(blocking.tile_rows, step_depth);
    memory.rank_bytes = blocking.makes_rank_rows ? bytes_of(depth, step_depth) : 0;
    // An m64 of rows is read although there may be fewer.
    const int rows_missing = blocking.makes_rank_rows ? greatest_of(0, 64 - blocking.tile_rows - depth) : 0;
    memory.stage_bytes =
        memory.weight_bytes + memory.rows_bytes + memory.rank_bytes + bytes_of(rows_missing, step_depth);
    memory.staging = static_cast<unsigned>(blocking.stages) * memory.stage_bytes;
    memory.staging_bytes = bytes_of(staging_slots(blocking) * slot_rows, tile_columns);
    memory.lora_weight_bytes = rank > 0 ? bytes_of(tile_columns, depth) : 0;
    memory.lora_rows_bytes = rank > 0 ? bytes_of(blocking.tile_rows, depth) : 0;
    memory.lora_beside = lora_steps(rank) == 1 && (blocking.cluster == 1 || blocking.makes_rank_rows) &&
                         memory.lora_weight_bytes + memory.lora_rows_bytes <= memory.staging_bytes;
    memory.rank_rows = memory.staging + (memory.lora_beside ? memory.lora_weight_bytes : 0);
    memory.tiles = memory.staging + memory.staging_bytes;
    memory.item = memory.tiles + tile_slots * tile_bytes;
    memory.barriers = memory.item + 8;
    memory.out_rows = memory.barriers + static_cast<unsigned>(barrier_count(blocking) * 8);
    memory.prefix = memory.out_rows + static_cast<unsigned>(blocking.tile_rows * 4);
    memory.warp_totals = memory.prefix + static_cast<unsigned>((E + 2) * 4);
    memory.bytes = memory.warp_totals + static_cast<unsigned>(block_threads / 32 * 4);
    return memory;
}

/// Whether rank rows that are made on the way have room in the staging, where they wait for their product.
constexpr bool rank_rows_fit(const Blocking& blocking, int rank) {
    const SharedMemory memory = shared_memory(blocking, 0, 0, rank);
    return memory.lora_rows_bytes <= memory.staging_bytes;
}

}  // namespace grouped_product_wgmma
}  // namespace smlora
