// The pieces of work of the gradients whose blocks take whole spans of columns.
#pragma once

#include "args/lora_gradient.h"
#include "lora_gradient_pieces.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora {

struct GradientItem {
    int side;
    int group;          ///< -1: there is none
    int slot;           ///< in `partials`, -1: the expert's sums are complete
    int column, width;  ///< of the span
    int rank_tile;
    int begin, end;  ///< sorted positions; none for an expert without rows
};

/// Columns of each of the SPANS spans of WIDE columns: about even, multiples of UNIT.
template <int WIDE, int SPANS, int UNIT>
constexpr int gradient_span_width = SPANS == 0 ? 0 : round_up(ceil_div(WIDE, SPANS == 0 ? 1 : SPANS), UNIT);

/// All items (expert, chunk of its rows, span of at most SPAN columns, rank tile), the last fastest, or the span
/// slowest where the arguments ask for it.
template <class C, int SPAN, int UNIT, int RANK_TILES>
struct GradientItems {
    static constexpr int spans_a = ceil_div(C::WIDE_A, SPAN);
    static constexpr int spans_b = ceil_div(C::WIDE_B, SPAN);
    static constexpr int of_chunk_a = spans_a * RANK_TILES;
    static constexpr int of_chunk_b = spans_b * RANK_TILES;

    const int* prefix;  ///< chunks before each expert
    const int* slots;   ///< see gradient_slots
    const LoraGradientPair& args;

    [[nodiscard]] __device__ __forceinline__ int count() const { return prefix[C::E] * (of_chunk_a + of_chunk_b); }

    [[nodiscard]] __device__ __forceinline__ GradientItem at(int number) const {
        // Both sides' items mix evenly: one side reads from memory what the next has in L2.
        constexpr int both = of_chunk_a + of_chunk_b;
        const int turn = number % both;
        const int a_before = turn * of_chunk_a / both;
        const bool a = (turn + 1) * of_chunk_a / both > a_before;
        const int of_chunk = a ? of_chunk_a : of_chunk_b;
        const int index = number / both * of_chunk + (a ? a_before : turn - a_before);
        // Rows that are read for several experts should still be in L2 when they are read again: those of one span may
        // be.
        const int all_chunks = prefix[C::E];
        const bool by_span = (a ? args.a.by_span : args.b.by_span) != 0;
        const int chunk = by_span ? index % all_chunks : index / of_chunk;
        const int own = by_span ? index / all_chunks : index % of_chunk;
        GradientItem item;
        item.side = a ? side_a : side_b;
        item.rank_tile = own % RANK_TILES;
        const int wide = a ? C::WIDE_A : C::WIDE_B;
        item.width = a ? gradient_span_width<C::WIDE_A, spans_a, UNIT> : gradient_span_width<C::WIDE_B, spans_b, UNIT>;
        item.column = own / RANK_TILES * item.width;
        if (item.column + item.width > wide) item.width = wide - item.column;
        item.group = group_of<C::E>(prefix, chunk);
        const int own_chunk = chunk - prefix[item.group];
        const int chunks = prefix[item.group + 1] - prefix[item.group];
        item.slot = chunks > 1 ? slots[item.group] + own_chunk : -1;
        const GradientGroups<C> groups{static_cast<const typename C::Index*>(args.a.expert_offsets), args.a.M};
        const RowRange rows = chunk_rows<C>(groups, item.group, own_chunk, chunks);
        item.begin = rows.begin;
        item.end = rows.end;
        return item;
    }
};

}  // namespace smlora
