// How the gradients of the adapter are cut into pieces of work, and how sums are stored.
#pragma once

#include "args/lora_gradient.h"
#include "groups.cuh"
#include "rows.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora {

enum GradientSide : int { side_a = 0, side_b = 1 };

/// The wide operands of the two sides, each in its own order.
template <class C>
using RowsA = Rows<const typename C::Element, C::ROWS_A, C::TOP_K>;
template <class C>
using RowsB = Rows<const typename C::Element, C::ROWS_B, C::TOP_K>;

/// Of an expert: with the columns in spans, enough for every block of the grid; more are only more to add up.
constexpr int most_chunks = 64;

/// Groups of the gradients: entries that were left out have none.
template <class C>
using GradientGroups = Groups<C, false>;

/// A group with more than `uncut_rows` rows is cut, so that its sums do not fall to one block: into chunks of half as
/// many rows, as what is in pieces already may as well be shared out evenly.
template <class C>
__device__ __forceinline__ int gradient_chunks(const GradientGroups<C>& groups, int group, int uncut_rows) {
    const int rows = groups.rows(group);
    if (rows <= uncut_rows) return 1;
    const int chunks = ceil_div(rows, uncut_rows / 2);
    return chunks < most_chunks ? chunks : most_chunks;
}

/// Sorted positions.
struct RowRange {
    int begin, end;
};

/// Those of one of a group's chunks: about even ones.
template <class C>
__device__ __forceinline__ RowRange chunk_rows(const GradientGroups<C>& groups, int group, int chunk, int chunks) {
    const int first = groups.first_row(group);
    const int end = groups.end_row(group);
    const int rows = ceil_div(end - first, chunks);
    const int begin = first + chunk * rows;
    return {begin, begin + rows < end ? begin + rows : end};
}

/// Chunks before each group, counting only groups with several: their slots in `partials`.
template <int THREADS, class C>
__device__ __forceinline__ void gradient_slots(int* slots, int* warp_totals, const GradientGroups<C>& groups,
                                               int uncut_rows) {
    prefix_counts<C::E, THREADS>(slots, warp_totals, [&](int group) {
        const int chunks = gradient_chunks<C>(groups, group, uncut_rows);
        return chunks > 1 ? chunks : 0;
    });
}

/// Stores COUNT neighbours, at once where `to` allows it.
template <int COUNT, class Output>
__device__ __forceinline__ void store_neighbours(Output* to, const float (&values)[COUNT], bool aligned) {
    constexpr int words = COUNT * static_cast<int>(sizeof(Output)) / 4;
    constexpr int vector_words = words < 4 ? words : 4;
    if (aligned) {
        uint32 word[words];
#pragma unroll
        for (int w = 0; w < words; ++w) {
            if constexpr (is_same<Output, float>::value) {
                word[w] = __float_as_uint(values[w]);
            } else {
                word[w] = pack2<Output>(values[w * 2], values[w * 2 + 1]);
            }
        }
        struct alignas(vector_words * 4) Vector {
            uint32 word[vector_words];
        };
#pragma unroll
        for (int first = 0; first < words; first += vector_words) {
            Vector vector;
#pragma unroll
            for (int w = 0; w < vector_words; ++w) vector.word[w] = word[first + w];
            reinterpret_cast<Vector*>(to)[first / vector_words] = vector;
        }
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) to[i] = from_float<Output>(values[i]);
    }
}

/// Whether steps of `stride` elements keep to multiples of `bytes`.
template <class Output>
__device__ __forceinline__ bool keeps(int64 stride, int bytes) {
    return stride * static_cast<int64>(sizeof(Output)) % bytes == 0;
}

}  // namespace smlora
