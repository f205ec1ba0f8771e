// Gradients of the adapter on tensor cores, sm_80 and up: dA_e = yb_e^T x_e and dB_e = dy_e^T xa_e in one launch,
// products whose reduction runs over the rows of an expert. Streams the wide operands (x and dy) once.
//
// Every warp works by itself, from registers: no shared memory but for the work list, no barrier in the loop. The
// reduction may take rows in any order and a product may take columns in any order, as long as both operands and the
// output agree. So a lane loads 16 bytes of each of four rows, 8 neighbouring columns, and the halves of two rows'
// words, put together, are the pair of neighbours along the reduction that mma wants. The same for the rank rows.
// What lies in a lane's accumulators at the end are neighbours again, 8 columns by 2 TILE_R / 8 ranks.
//
// Warps of a persistent grid walk the items (expert, chunk of rows, side, 64 columns, rank tile). An expert with many
// rows is cut into chunks, whose sums go to `partials` in fp32; lora_gradient_reduce adds them in order. No atomics:
// results are bitwise repeatable. Items of the sides alternate, since one may come from memory and the other from L2;
// rows in token order, which every choice of a token reads again, are walked by blocks of columns that stay in L2.
//
// STEPS steps of 16 rows are under way for each warp, across items: while one is summed and written, the rows of the
// next are coming, and the indices of the rows after those.
//
// Shared memory
//   prefix       (E + 1) x 4   chunks before each expert, at least one for each
//   slots        (E + 1) x 4   see gradient_slots
//   warp_totals  WARPS x 4
//
// Compile-time (struct C): E, WIDE_A and WIDE_B (columns; 0: that gradient is not wanted), ROWS_A, ROWS_B, RANK,
// RANK_STRIDE, TOP_K, HAS_GATES, TILE_R (8, 16, 32 or 64), STEPS, WARPS; types Element, Output, Gate, Index. The widths
// and RANK_STRIDE are multiples of 8, every row 16-byte aligned.
#pragma once

#include "args/lora_gradient.h"
#include "lora_gradient_pieces.cuh"
#include "ptx/load.cuh"
#include "ptx/mma.cuh"
#include "ptx/synchronise.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_mma {

using Args = LoraGradientPair;

constexpr int tile_columns = 64;
constexpr int step_rows = 16;

template <class C>
struct Layout {
    static constexpr int threads = C::WARPS * 32;
    static constexpr int rank_tiles = ceil_div(C::RANK, C::TILE_R);
    static constexpr int tiles_a = ceil_div(C::WIDE_A, tile_columns) * rank_tiles;
    static constexpr int tiles_b = ceil_div(C::WIDE_B, tile_columns) * rank_tiles;
    static constexpr int n_tiles = C::TILE_R / 8;
    static constexpr int rank_words = n_tiles == 1 ? 1 : n_tiles / 2;
    static constexpr int group_rows = C::STEPS * step_rows;
    static constexpr int index_words = ceil_div(group_rows, 32);

    static_assert(n_tiles == 1 || n_tiles == 2 || n_tiles == 4 || n_tiles == 8, "one load for a lane's ranks of a row");
};

/// One piece of work.
struct Piece {
    int side;
    int expert;
    int slot;  ///< in `partials`, -1: the expert's sums are complete
    int column;
    int first_rank;
    int begin, end;  ///< sorted positions
};

/// Chunk and tile of item `own` of one side.
template <int ROWS, int TILES, int RANK_TILES>
__device__ __forceinline__ void place(int own, int chunks, int& chunk, int& tile) {
    // 256 columns of all tokens: 8 MiB for 16,384 of them.
    constexpr int block = ROWS == rows_token ? 4 * RANK_TILES : TILES;
    const int first = own / (chunks * block) * block;
    const int width = TILES - first < block ? TILES - first : block;
    const int in_block = own - chunks * first;
    chunk = in_block / width;
    tile = first + in_block % width;
}

/// The items of all warps.
template <class C>
struct WorkList {
    using Index = typename C::Index;

    const Args& args;
    const int* prefix;
    const int* slots;
    int items;
    int stride;

    [[nodiscard]] __device__ __forceinline__ Piece piece(int item) const {
        using L = Layout<C>;
        constexpr int tiles = L::tiles_a + L::tiles_b;
        const int chunks = prefix[C::E];
        // Of every `tiles` items in a row, tiles_a are side a's.
        const int a_before = static_cast<int>(static_cast<int64>(item) * L::tiles_a / tiles);
        const int a_with = static_cast<int>(static_cast<int64>(item + 1) * L::tiles_a / tiles);
        Piece piece;
        int chunk_item = 0;
        int tile = 0;
        if (a_with > a_before) {
            piece.side = side_a;
            if constexpr (L::tiles_a > 0) {
                place<C::ROWS_A, L::tiles_a, L::rank_tiles>(a_before, chunks, chunk_item, tile);
            }
        } else {
            piece.side = side_b;
            if constexpr (L::tiles_b > 0) {
                place<C::ROWS_B, L::tiles_b, L::rank_tiles>(item - a_before, chunks, chunk_item, tile);
            }
        }
        const auto* const offsets = static_cast<const Index*>(args.a.expert_offsets);
        piece.expert = group_of<C::E>(prefix, chunk_item);
        const int chunk = chunk_item - prefix[piece.expert];
        const bool split = prefix[piece.expert + 1] - prefix[piece.expert] > 1;
        piece.slot = split ? slots[piece.expert] + chunk : -1;
        piece.column = tile / L::rank_tiles * tile_columns;
        piece.first_rank = tile % L::rank_tiles * C::TILE_R;
        const int expert_end = static_cast<int>(offsets[piece.expert]);
        piece.begin = first_row(offsets, piece.expert) + chunk * args.a.chunk_rows;
        piece.end =
            split && piece.begin + args.a.chunk_rows < expert_end ? piece.begin + args.a.chunk_rows : expert_end;
        return piece;
    }
};

/// What a lane holds of one step: its quarter of the step's rows, lane % 4 * 4 + {0, 1, 2, 3}.
template <class C>
struct Step {
    Vec16 wide[4];                           ///< columns lane / 4 * 8 ..
    uint32 ranks[4][Layout<C>::rank_words];  ///< ranks lane / 4 * n_tiles ..
    float gates[C::HAS_GATES != 0 ? 4 : 1];
};

/// Loads the groups of this warp's pieces, STEPS steps each, one after the other, ahead of their products.
template <class C>
struct Loader {
    using L = Layout<C>;
    using Element = typename C::Element;
    using Index = typename C::Index;

    const Args& args;
    const WorkList<C>& list;
    int item = 0;
    int side = 0;
    int first = 0, end = 0;              ///< sorted positions: of the group that is loaded next, of its piece
    const Element* wide = nullptr;       ///< this lane's columns of row 0
    const Element* rank_rows = nullptr;  ///< this lane's ranks of row 0
    int flat[L::index_words] = {};       ///< flat entries of the group's rows, 32 to a register

    /// Goes to the first piece with rows from `from` on.
    __device__ __forceinline__ void seek(int from) {
        first = end = 0;
        for (item = from; item < list.items; item += list.stride) {
            const Piece piece = list.piece(item);
            if (piece.begin == piece.end) continue;
            side = piece.side;
            first = piece.begin;
            end = piece.end;
            // Columns and ranks that are not there are not written either; what is loaded for them does not matter.
            const int lane = static_cast<int>(threadIdx.x) % 32;
            int column = piece.column + lane / 4 * 8;
            if (column >= (side == side_a ? C::WIDE_A : C::WIDE_B)) column = 0;
            int rank = piece.first_rank + lane / 4 * L::n_tiles;
            if (rank >= C::RANK_STRIDE) rank = 0;
            wide = static_cast<const Element*>(side == side_a ? args.a.wide : args.b.wide) + column;
            rank_rows = static_cast<const Element*>(side == side_a ? args.a.rank_rows : args.b.rank_rows) + rank;
            break;
        }
        find_rows();
    }

    __device__ __forceinline__ void next() {
        first += L::group_rows;
        if (first < end) {
            find_rows();
        } else {
            seek(item + list.stride);
        }
    }

    __device__ __forceinline__ void find_rows() {
        if constexpr (C::ROWS_A != rows_grouped || C::ROWS_B != rows_grouped || C::HAS_GATES != 0) {
            const auto* const scattered = static_cast<const Index*>(args.a.scattered_idxs);
#pragma unroll
            for (int word = 0; word < L::index_words; ++word) {
                const int position = first + word * 32 + static_cast<int>(threadIdx.x % 32);
                if (position < end) flat[word] = static_cast<int>(scattered[position]);
            }
        }
    }

    /// Begins the loads of step `number` of the group, if the piece has it. Rows past the piece's end repeat its last.
    __device__ __forceinline__ void load(Step<C>& step, int number) const {
        if (first + number * step_rows >= end) return;
        const int quarter = static_cast<int>(threadIdx.x) % 4;
        const int64 pitch = side == side_a ? args.a.wide_stride : args.b.wide_stride;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int position = first + number * step_rows + quarter * 4 + i;
            if (position >= end) position = end - 1;
            const int entry = __shfl_sync(0xffffffffU, flat[number / 2], (position - first) % 32);
            const int row = side == side_a ? row_of<C::ROWS_A, C::TOP_K>(position, entry)
                                           : row_of<C::ROWS_B, C::TOP_K>(position, entry);
            step.wide[i] = ptx::load_once(wide + row * pitch);
            const Element* const from = rank_rows + static_cast<int64>(position) * C::RANK_STRIDE;
            if constexpr (L::n_tiles == 1) {
                step.ranks[i][0] = from->bits;
            } else {
                struct alignas(L::rank_words * 4) Words {
                    uint32 word[L::rank_words];
                };
                const Words words = *reinterpret_cast<const Words*>(from);
#pragma unroll
                for (int w = 0; w < L::rank_words; ++w) step.ranks[i][w] = words.word[w];
            }
            if constexpr (C::HAS_GATES != 0) {
                step.gates[i] = to_float(static_cast<const typename C::Gate*>(args.a.gates)[entry]);
            }
        }
    }
};

/// The lower halves of two words, or the upper ones.
__device__ __forceinline__ uint32 lower_halves(uint32 a, uint32 b) { return (a & 0xffffU) | (b << 16); }
__device__ __forceinline__ uint32 upper_halves(uint32 a, uint32 b) { return (a >> 16) | (b & 0xffff0000U); }

template <class Element>
__device__ __forceinline__ uint32 times(uint32 pair, float factor) {
    return pack2<Element>(to_float(Element{static_cast<uint16>(pair & 0xffffU)}) * factor,
                          to_float(Element{static_cast<uint16>(pair >> 16)}) * factor);
}

/// sums += the rows of one step, of which `rows` are there.
template <class C>
__device__ __forceinline__ void multiply(float (&sums)[4][Layout<C>::n_tiles][4], const Step<C>& step, int rows) {
    using L = Layout<C>;
    using Element = typename C::Element;
    const int quarter = static_cast<int>(threadIdx.x) % 4;
    uint32 ranks[4][L::rank_words];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int w = 0; w < L::rank_words; ++w) {
            uint32 pair = step.ranks[i][w];
            if constexpr (C::HAS_GATES != 0) pair = times<Element>(pair, step.gates[i]);
            ranks[i][w] = quarter * 4 + i < rows ? pair : 0U;
        }
    }
    uint32 right[L::n_tiles][2];
#pragma unroll
    for (int n = 0; n < L::n_tiles; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint32 one = ranks[i * 2][n / 2];
            const uint32 other = ranks[i * 2 + 1][n / 2];
            right[n][i] = n % 2 == 0 ? lower_halves(one, other) : upper_halves(one, other);
        }
    }
#pragma unroll
    for (int m = 0; m < 4; ++m) {
        const uint32 left[4] = {lower_halves(step.wide[0].word[m], step.wide[1].word[m]),
                                upper_halves(step.wide[0].word[m], step.wide[1].word[m]),
                                lower_halves(step.wide[2].word[m], step.wide[3].word[m]),
                                upper_halves(step.wide[2].word[m], step.wide[3].word[m])};
#pragma unroll
        for (int n = 0; n < L::n_tiles; ++n) {
            ptx::mma_m16n8k16<Element>(sums[m][n], left, right[n][0], right[n][1]);
        }
    }
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

/// Writes a piece's sums: whole vectors along whichever direction is contiguous outside.
template <class C, int WIDE>
__device__ __forceinline__ void write_side(const float (&sums)[4][Layout<C>::n_tiles][4], const LoraGradientArgs& args,
                                           const Piece& piece) {
    using L = Layout<C>;
    using Output = typename C::Output;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int column = piece.column + lane / 4 * 8;
    if (column >= WIDE) return;
    constexpr int own_ranks = 2 * L::n_tiles;  // neighbours
    const int first_rank = piece.first_rank + lane % 4 * own_ranks;
    // Column c of the lane's 8 and rank r of its own_ranks.
    const auto sum = [&](int c, int r) { return sums[c / 2][r % L::n_tiles][c % 2 * 2 + r / L::n_tiles]; };
    if (piece.slot >= 0) {
        auto* const slot =
            static_cast<float*>(args.partials) + static_cast<int64>(piece.slot) * C::RANK * WIDE + column;
#pragma unroll
        for (int r = 0; r < own_ranks; ++r) {
            if (first_rank + r >= C::RANK) break;
            const float values[8] = {sum(0, r), sum(1, r), sum(2, r), sum(3, r),
                                     sum(4, r), sum(5, r), sum(6, r), sum(7, r)};
            store_neighbours(slot + static_cast<int64>(first_rank + r) * WIDE, values, true);
        }
        return;
    }
    auto* const out = static_cast<Output*>(args.out) + piece.expert * args.out_expert_stride +
                      column * args.out_wide_stride + first_rank * args.out_rank_stride;
    if (args.out_wide_stride == 1) {
        const bool aligned = reinterpret_cast<uint64>(args.out) % 16 == 0 &&
                             keeps<Output>(args.out_expert_stride, 16) && keeps<Output>(args.out_rank_stride, 16);
#pragma unroll
        for (int r = 0; r < own_ranks; ++r) {
            if (first_rank + r >= C::RANK) break;
            const float values[8] = {sum(0, r), sum(1, r), sum(2, r), sum(3, r),
                                     sum(4, r), sum(5, r), sum(6, r), sum(7, r)};
            store_neighbours(out + r * args.out_rank_stride, values, aligned);
        }
        return;
    }
    constexpr int vector =
        own_ranks * static_cast<int>(sizeof(Output)) < 16 ? own_ranks * static_cast<int>(sizeof(Output)) : 16;
    const bool whole = args.out_rank_stride == 1 && first_rank + own_ranks <= C::RANK &&
                       reinterpret_cast<uint64>(args.out) % vector == 0 &&
                       keeps<Output>(args.out_expert_stride, vector) && keeps<Output>(args.out_wide_stride, vector);
#pragma unroll
    for (int c = 0; c < 8; ++c) {
        Output* const to = out + c * args.out_wide_stride;
        if (whole) {
            float values[own_ranks];
#pragma unroll
            for (int r = 0; r < own_ranks; ++r) values[r] = sum(c, r);
            store_neighbours(to, values, true);
        } else {
#pragma unroll
            for (int r = 0; r < own_ranks; ++r) {
                if (first_rank + r < C::RANK) to[r * args.out_rank_stride] = from_float<Output>(sum(c, r));
            }
        }
    }
}

template <class C>
__device__ __forceinline__ void write(const float (&sums)[4][Layout<C>::n_tiles][4], const Args& args,
                                      const Piece& piece) {
    if (piece.side == side_a) {
        if constexpr (C::WIDE_A > 0) write_side<C, C::WIDE_A>(sums, args.a, piece);
    } else {
        if constexpr (C::WIDE_B > 0) write_side<C, C::WIDE_B>(sums, args.b, piece);
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using L = Layout<C>;
    using Index = typename C::Index;
    extern __shared__ __align__(16) unsigned char shared[];
    int* const prefix = reinterpret_cast<int*>(shared);
    int* const slots = prefix + C::E + 1;
    int* const warp_totals = slots + C::E + 1;
    const auto* const offsets = static_cast<const Index*>(args.a.expert_offsets);
    const int chunk_rows = args.a.chunk_rows;
    ptx::let_next_kernel_begin();
    prefix_counts<C::E, L::threads>(prefix, warp_totals,
                                    [&](int expert) { return gradient_chunks(offsets, expert, chunk_rows); });
    gradient_slots<C::E, L::threads>(slots, warp_totals, offsets, chunk_rows);
    const WorkList<C> list{args, prefix, slots, prefix[C::E] * (L::tiles_a + L::tiles_b),
                           static_cast<int>(gridDim.x) * C::WARPS};
    const int first_item = static_cast<int>(blockIdx.x * C::WARPS + threadIdx.x / 32);

    Loader<C> loader{args, list};
    Step<C> steps[C::STEPS];
    loader.seek(first_item);
#pragma unroll
    for (int number = 0; number < C::STEPS; ++number) loader.load(steps[number], number);
    loader.next();
    for (int item = first_item; item < list.items; item += list.stride) {
        float sums[4][L::n_tiles][4] = {};
        const Piece piece = list.piece(item);
#pragma unroll 1
        for (int rows = piece.end - piece.begin; rows > 0; rows -= L::group_rows) {
#pragma unroll
            for (int number = 0; number < C::STEPS; ++number) {
                const int own = rows - number * step_rows;
                if (own > 0) multiply<C>(sums, steps[number], own);
                loader.load(steps[number], number);
            }
            loader.next();
        }
        // Found again rather than kept: registers are for rows on their way.
        write<C>(sums, args, list.piece(item));
    }
}

}  // namespace smlora::lora_gradient_mma
