// Sizes, shared memory and barriers of the grouped product on wgmma.
//
// Shared memory, every piece aligned to 1024 bytes where TMA or wgmma read it
//   STAGES x stage     weights [TILE_COLUMNS x 64], then rows [TILE_ROWS x 64], then, with MAKES_RANK_ROWS, the rank
//                      matrix [RANK_DEPTH x 64], and nothing up to 64 rows beside the weights; 2 bytes each, swizzled
//                      in units of 128 bytes (the rank matrix by its pitch)
//   staging            STAGING_ROWS / 16 slots x [16 rows x 256 columns], 2 bytes each, 16-byte chunks swizzled: the
//                      output tile on its way out, 16 rows at a time.
//                      Between two tiles' outputs: the adapter's operands, weights [TILE_COLUMNS x RANK_DEPTH], then
//                      rank rows [TILE_ROWS x RANK_DEPTH]. An adapter too large for that takes a stage's place, step by
//                      step, all but the rank rows that are made here.
//   tiles              2 x 32           the tile that is worked on and the next one
//   item               8                the cluster's next item, as its first block tells it to the other
//   barriers           (2 STAGES + 2 slots + 1 + 4 + 2) x 8
//   out_rows           TILE_ROWS x 4    where each row of the tile that is stored begins, in units of 16 bytes
//   prefix             (E + 2) x 4      row tiles before each expert; group E is the entries left out, whose rows
//                                       are zero
//   warp_totals        16 x 4
#pragma once

#include "ptx/wgmma.cuh"
#include "ring.cuh"
#include "types.cuh"

namespace smlora::grouped_product_wgmma {

/// Depth of a step of the reduction: 128 bytes, a row of the widest swizzle.
constexpr int step_depth = 64;

/// Columns of the tile, two m64 for each of the two warpgroups that multiply.
constexpr int tile_columns = 256;

/// Rows of the output that are staged together.
constexpr int slot_rows = 16;

/// Of a Tile, in shared memory.
constexpr unsigned tile_bytes = 32;

/// One of each kind: copies, stores; the two others multiply.
constexpr int warpgroups = 4;

template <class C>
struct Layout {
    static constexpr int threads = warpgroups * 128;

    /// Registers of a thread that copies, stores or multiplies; the rank rows' sums are 16 of the latter's.
    static constexpr int copying_registers = C::MAKES_RANK_ROWS != 0 ? 64 : 72;
    static constexpr int storing_registers = C::MAKES_RANK_ROWS != 0 ? 48 : 56;
    static constexpr int multiplying_registers = C::MAKES_RANK_ROWS != 0 ? 200 : 192;
    static_assert(copying_registers + storing_registers + 2 * multiplying_registers <= 512, "a multiprocessor's");

    static constexpr bool has_lora = C::RANK > 0;
    static constexpr bool makes_rank_rows = C::MAKES_RANK_ROWS != 0;
    /// Depth of one step over the rank: what wgmma and the swizzles allow.
    static constexpr int rank_depth = C::RANK <= 16 ? 16 : C::RANK <= 32 ? 32 : 64;
    static constexpr int rank_pitch = rank_depth * 2;

    static constexpr int red_steps = ceil_div(C::RED, step_depth);
    static constexpr int lora_steps = has_lora ? ceil_div(C::RANK, rank_depth) : 0;
    static constexpr unsigned weight_bytes = tile_columns * step_depth * 2;
    static constexpr unsigned rows_bytes = C::TILE_ROWS * step_depth * 2;
    static constexpr unsigned rank_bytes = makes_rank_rows ? rank_depth * step_depth * 2 : 0;
    /// An m64 of rows is read although there may be fewer.
    static constexpr int rows_missing = 64 - C::TILE_ROWS - rank_depth;
    static constexpr unsigned unused_bytes = makes_rank_rows && rows_missing > 0 ? rows_missing* step_depth * 2 : 0;
    static constexpr unsigned stage_bytes = weight_bytes + rows_bytes + rank_bytes + unused_bytes;
    static constexpr int slots = C::STAGING_ROWS / slot_rows;
    static constexpr unsigned slot_bytes = slot_rows * tile_columns * 2;
    static constexpr unsigned staging_bytes = slots * slot_bytes;
    static constexpr unsigned lora_weight_bytes = has_lora ? tile_columns * rank_pitch : 0;
    static constexpr unsigned lora_rows_bytes = has_lora ? C::TILE_ROWS * rank_pitch : 0;

    /// Whether the adapter lies in the staging; else its steps go through the pipeline like those of the reduction, as
    /// they do where a cluster's blocks would wait for each other's staging for nothing else.
    static constexpr bool lora_beside =
        lora_steps == 1 && (C::CLUSTER == 1 || makes_rank_rows) && lora_weight_bytes + lora_rows_bytes <= staging_bytes;
    static constexpr int lora_slots = lora_beside ? 0 : lora_steps;

    /// Tiles that read rank rows wait for the tile that makes them.
    static constexpr bool dynamic = makes_rank_rows;
    static constexpr unsigned tile_slots = 2;
    static constexpr int barrier_count = 2 * C::STAGES + 2 * slots + 1 + 2 * static_cast<int>(tile_slots) + 2;

    static constexpr unsigned staging = C::STAGES * stage_bytes;
    static constexpr unsigned rank_rows = staging + (lora_beside ? lora_weight_bytes : 0);
    static constexpr unsigned tiles = staging + staging_bytes;
    static constexpr unsigned item_place = tiles + tile_slots * tile_bytes;
    static constexpr unsigned barriers = item_place + 8;
    static constexpr unsigned out_rows = barriers + barrier_count * 8;
    static constexpr unsigned prefix = out_rows + C::TILE_ROWS * 4;
    static constexpr unsigned warp_totals = prefix + (C::E + 2) * 4;

    static_assert(C::TILE_ROWS % 16 == 0, "whole passes of 16 rows");
    static_assert(C::STAGING_ROWS % slot_rows == 0 && C::STAGING_ROWS <= C::TILE_ROWS, "whole slots");
    static_assert(!makes_rank_rows || lora_beside || lora_rows_bytes <= staging_bytes, "rank rows lie in the staging");
    static_assert(!makes_rank_rows || (lora_steps == 1 && C::TILE_ROWS <= (rank_depth == 16 ? 192 : 128)),
                  "the rank rows of a tile are one step of the adapter and two or, of the least depth, three m64");
    /// Warps that give the staging back, see left(): the adapter goes to that of both blocks at once.
    static constexpr unsigned leaving_warps = lora_beside ? 4 * C::CLUSTER : 4;

    // Barriers: stages filled and emptied; slots of the staging filled and emptied; all of a tile's output stored.
    static __device__ __forceinline__ unsigned filled(unsigned base, int stage) { return base + barriers + stage * 8; }
    static __device__ __forceinline__ unsigned emptied(unsigned base, int stage) {
        return base + barriers + (C::STAGES + stage) * 8;
    }
    static __device__ __forceinline__ unsigned staged(unsigned base, int slot) {
        return base + barriers + (2 * C::STAGES + slot) * 8;
    }
    static __device__ __forceinline__ unsigned stored(unsigned base, int slot) {
        return base + barriers + (2 * C::STAGES + slots + slot) * 8;
    }
    static __device__ __forceinline__ unsigned left(unsigned base) {
        return base + barriers + (2 * C::STAGES + 2 * slots) * 8;
    }
    // Tiles announced, and noted by every warp.
    static __device__ __forceinline__ unsigned announced(unsigned base, unsigned slot) {
        return base + barriers + (2 * C::STAGES + 2 * slots + 1 + slot) * 8;
    }
    static __device__ __forceinline__ unsigned noted(unsigned base, unsigned slot) {
        return base + barriers + (2 * C::STAGES + 2 * slots + 1 + tile_slots + slot) * 8;
    }
    // The cluster's next item told to the other block, and read by it.
    static __device__ __forceinline__ unsigned item_told(unsigned base) {
        return base + barriers + (barrier_count - 2) * 8;
    }
    static __device__ __forceinline__ unsigned item_read(unsigned base) {
        return base + barriers + (barrier_count - 1) * 8;
    }
    static __device__ __forceinline__ unsigned item(unsigned base) { return base + item_place; }
    static __device__ __forceinline__ unsigned tile(unsigned base, unsigned slot) {
        return base + tiles + slot * tile_bytes;
    }
};

}  // namespace smlora::grouped_product_wgmma
