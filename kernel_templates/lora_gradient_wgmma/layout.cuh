// Sizes, barriers and items of lora_gradient_wgmma.
#pragma once

#include "args/lora_gradient.h"
#include "args/lora_gradient_wgmma.h"
#include "lora_gradient_pieces.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_wgmma {

template <class C>
struct Layout {
    static constexpr Blocking blocking{C::BLOCKS, C::STEP_ROWS, C::STAGES};
    static constexpr SharedMemory memory = shared_memory(blocking, C::E, C::RANK_STRIDE);
    static constexpr int span = lora_gradient_wgmma::span(blocking);
    static constexpr int spans_a = ceil_div(C::WIDE_A, span);
    static constexpr int spans_b = ceil_div(C::WIDE_B, span);

    static constexpr int ranks = C::RANK_STRIDE;
    static constexpr int low_ranks = first_ranks(ranks);
    static constexpr int high_ranks = ranks - low_ranks;

    /// Registers of a thread that copies or multiplies; with gates, rank rows go through those that copy.
    static constexpr int copying_registers = C::HAS_GATES == 0 ? 56 : ranks <= 128 ? 88 : 136;
    static constexpr int multiplying_registers = (504 - copying_registers) / 2;
    static_assert(copying_registers + warpgroups * multiplying_registers <= 504,
                  "those that a block of three warpgroups begins with");

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

struct Item {
    int side;
    int group;          ///< -1: there is none
    int slot;           ///< in `partials`, -1: the expert's sums are complete
    int column, width;  ///< of the span
    int begin, end;     ///< sorted positions; none for an expert without rows
};
static_assert(sizeof(Item) <= item_bytes, "as the host reserves");

/// Columns of each of the SPANS spans of WIDE columns: about even, whole blocks.
template <int WIDE, int SPANS>
constexpr int span_width = SPANS == 0 ? 0 : round_up(ceil_div(WIDE, SPANS == 0 ? 1 : SPANS), block_columns);

/// The list of all items.
template <class C>
struct Items {
    using L = Layout<C>;

    const int* prefix;  ///< chunks before each expert
    const int* slots;
    const LoraGradientPair& args;

    [[nodiscard]] __device__ __forceinline__ int count() const { return prefix[C::E] * (L::spans_a + L::spans_b); }

    [[nodiscard]] __device__ __forceinline__ Item at(int number) const {
        // Both sides' items mix evenly: one side reads from memory what the next has in L2.
        constexpr int both = L::spans_a + L::spans_b;
        const int turn = number % both;
        const int a_before = turn * L::spans_a / both;
        Item item;
        item.side = (turn + 1) * L::spans_a / both > a_before ? side_a : side_b;
        const bool a = item.side == side_a;
        const int spans = a ? L::spans_a : L::spans_b;
        const int index = number / both * spans + (a ? a_before : turn - a_before);
        // Rows that are read for several experts should still be in L2 when they are read again: those of one span may
        // be.
        const int chunks = prefix[C::E];
        const bool by_span = (a ? args.a.by_span : args.b.by_span) != 0;
        const int chunk = by_span ? index % chunks : index / spans;
        const int wide = a ? C::WIDE_A : C::WIDE_B;
        item.width = a ? span_width<C::WIDE_A, L::spans_a> : span_width<C::WIDE_B, L::spans_b>;
        item.column = (by_span ? index / chunks : index % spans) * item.width;
        if (item.column + item.width > wide) item.width = wide - item.column;
        item.group = group_of<C::E>(prefix, chunk);
        const int own_chunk = chunk - prefix[item.group];
        const int of_expert = prefix[item.group + 1] - prefix[item.group];
        item.slot = of_expert > 1 ? slots[item.group] + own_chunk : -1;
        const GradientGroups<C> groups{static_cast<const typename C::Index*>(args.a.expert_offsets), args.a.M};
        const RowRange rows = chunk_rows<C>(groups, item.group, own_chunk, of_expert);
        item.begin = rows.begin;
        item.end = rows.end;
        return item;
    }
};

}  // namespace smlora::lora_gradient_wgmma
