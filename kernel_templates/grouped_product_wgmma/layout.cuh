// Sizes and barriers of the grouped product on wgmma; what lies where in shared memory: args/grouped_product_wgmma.h.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "ptx/wgmma.cuh"
#include "ring.cuh"
#include "types.cuh"
#include "weight/wgmma.cuh"

namespace smlora::grouped_product_wgmma {

template <class C>
struct Layout {
    static constexpr Blocking blocking{C::TILE_ROWS, C::STAGES, C::STAGING_ROWS, C::CLUSTER, C::MAKES_RANK_ROWS != 0};
    static constexpr SharedMemory memory =
        shared_memory(blocking, C::E, C::Weight::stage_bytes(tile_columns, step_depth), C::RANK);

    /// Whether the sums of a multiplying thread need registers that the others have to do without.
    static constexpr bool many_rows = C::TILE_ROWS > 144;
    /// Registers of a thread that copies, stores or multiplies; the rank rows' sums are 16 of the latter's.
    static constexpr int copying_registers = many_rows ? 48 : C::MAKES_RANK_ROWS != 0 ? 64 : 72;
    static constexpr int storing_registers = many_rows || C::MAKES_RANK_ROWS != 0 ? 48 : 56;
    static constexpr int multiplying_registers = many_rows ? 208 : C::MAKES_RANK_ROWS != 0 ? 200 : 192;
    static_assert(copying_registers + storing_registers + 2 * multiplying_registers <= 512, "a multiprocessor's");

    static constexpr bool has_lora = C::RANK > 0;
    static constexpr bool makes_rank_rows = C::MAKES_RANK_ROWS != 0;
    static constexpr int rank_depth = grouped_product_wgmma::rank_depth(C::RANK);
    static constexpr int rank_pitch = rank_depth * 2;

    using BaseWeight = weight::Wgmma<typename C::Weight, typename C::Element, C::WEIGHT_MAJOR, step_depth>;
    using AdapterWeight = weight::Wgmma<weight::Plain, typename C::Element, C::LORA_MAJOR, rank_depth>;

    static constexpr int red_steps = ceil_div(C::RED, step_depth);
    static constexpr int lora_steps = grouped_product_wgmma::lora_steps(C::RANK);
    static constexpr int slots = staging_slots(blocking);
    static constexpr unsigned slot_bytes = slot_rows * tile_columns * 2;
    /// Steps of the adapter that go through the pipeline.
    static constexpr int lora_slots = memory.lora_beside ? 0 : lora_steps;

    /// Tiles that read rank rows wait for the tile that makes them.
    static constexpr bool dynamic = makes_rank_rows;

    static_assert(C::TILE_ROWS % 16 == 0, "whole passes of 16 rows");
    static_assert(C::STAGING_ROWS % slot_rows == 0 && C::STAGING_ROWS <= C::TILE_ROWS, "whole slots");
    static_assert(lora_slots == 0 || memory.lora_weight_bytes <= memory.weight_bytes,
                  "the adapter takes the place of a stage's weights");
    static_assert(!makes_rank_rows || rank_rows_fit(blocking, C::RANK), "rank rows lie in the staging");
    static_assert(!makes_rank_rows || (lora_steps == 1 && C::TILE_ROWS <= (rank_depth == 16 ? 192 : 128)),
                  "the rank rows of a tile are one step of the adapter and two or, of the least depth, three m64");
    /// Warps that give the staging back, see left(): the adapter goes to that of both blocks at once.
    static constexpr unsigned leaving_warps = memory.lora_beside ? 4 * C::CLUSTER : 4;

    // Barriers: stages filled and emptied; slots of the staging filled and emptied; all of a tile's output stored.
    static __device__ __forceinline__ unsigned filled(unsigned base, int stage) {
        return base + memory.barriers + stage * 8;
    }
    static __device__ __forceinline__ unsigned emptied(unsigned base, int stage) {
        return base + memory.barriers + (C::STAGES + stage) * 8;
    }
    static __device__ __forceinline__ unsigned staged(unsigned base, int slot) {
        return base + memory.barriers + (2 * C::STAGES + slot) * 8;
    }
    static __device__ __forceinline__ unsigned stored(unsigned base, int slot) {
        return base + memory.barriers + (2 * C::STAGES + slots + slot) * 8;
    }
    static __device__ __forceinline__ unsigned left(unsigned base) {
        return base + memory.barriers + (2 * C::STAGES + 2 * slots) * 8;
    }
    // Tiles announced, and noted by every warp.
    static __device__ __forceinline__ unsigned announced(unsigned base, unsigned slot) {
        return base + memory.barriers + (2 * C::STAGES + 2 * slots + 1 + slot) * 8;
    }
    static __device__ __forceinline__ unsigned noted(unsigned base, unsigned slot) {
        return base + memory.barriers + (2 * C::STAGES + 2 * slots + 1 + tile_slots + slot) * 8;
    }
    // The cluster's next item told to the other block, and read by it.
    static __device__ __forceinline__ unsigned item_told(unsigned base) {
        return base + memory.barriers + (barrier_count(blocking) - 2) * 8;
    }
    static __device__ __forceinline__ unsigned item_read(unsigned base) {
        return base + memory.barriers + (barrier_count(blocking) - 1) * 8;
    }
    static __device__ __forceinline__ unsigned item(unsigned base) { return base + memory.item; }
    static __device__ __forceinline__ unsigned tile(unsigned base, unsigned slot) {
        return base + memory.tiles + slot * tile_bytes;
    }
};

}  // namespace smlora::grouped_product_wgmma
