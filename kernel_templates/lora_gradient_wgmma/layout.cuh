// Sizes, barriers and items of lora_gradient_wgmma.
#pragma once

#include "args/lora_gradient.h"
#include "args/lora_gradient_wgmma.h"
#include "lora_gradient_items.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_wgmma {

template <class C>
struct Layout {
    static constexpr Blocking blocking{C::BLOCKS, C::STEP_ROWS, C::STAGES};
    static constexpr SharedMemory memory = shared_memory(blocking, C::E, C::RANK_STRIDE);
    static constexpr int ranks = C::RANK_STRIDE;
    static constexpr int low_ranks = first_ranks(ranks);
    static constexpr int high_ranks = ranks - low_ranks;

    /// Registers of a thread that copies or multiplies; with gates, rank rows go through those that copy.
    static constexpr int copying_registers = C::HAS_GATES == 0 ? 56 : ranks <= 128 ? 88 : 136;
    static constexpr int multiplying_registers = (504 - copying_registers) / 2;
    static_assert(multiplying_registers % 8 == 0, "as setmaxnreg has it; a block of three warpgroups begins with 504");

    /// Every thread that copies arrives with its asynchronous copies and, with gates, for what it has stored; without,
    /// the first does for the item.
    static constexpr unsigned filling_arrivals = C::HAS_GATES != 0 ? 256 : 129;

    static_assert(C::STEP_ROWS % 16 == 0, "whole instructions, and whole passes of the threads that copy");
    static_assert(C::BLOCKS * ranks <= most_sums, "the sums of a warpgroup fit its registers");

    static __device__ __forceinline__ unsigned filled(unsigned base, int stage) {
        return base + memory.barriers + stage * 8;
    }
    static __device__ __forceinline__ unsigned emptied(unsigned base, int stage) {
        return base + memory.barriers + (C::STAGES + stage) * 8;
    }
};

using Item = GradientItem;
static_assert(sizeof(Item) <= item_bytes, "as the host reserves");

template <class C>
using Items = GradientItems<C, span(Layout<C>::blocking), block_columns, 1>;

}  // namespace smlora::lora_gradient_wgmma
