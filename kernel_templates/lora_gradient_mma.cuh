// Gradients of the adapter on tensor cores, sm_80 and up: dA_e = yb_e^T x_e and dB_e = dy_e^T xa_e in one launch,
// products whose reduction runs over the rows of an expert. Streams the wide operands (x and dy) once.
//
// Every warp works by itself, and so does every lane: it copies 16-byte pieces of four rows, 8 neighbouring columns
// each, to a place of its own in shared memory and reads them back when they have come. No barrier in the loop. The
// reduction may take rows in any order and a product may take columns in any order, as long as both operands and the
// output agree: the halves of two rows' words, put together, are the pair of neighbours along the reduction that mma
// wants. The same for the rank rows. What lies in a lane's accumulators at the end are neighbours again, 8 columns by
// TILE_R / 4 ranks.
//
// Blocks of a persistent grid walk the items (expert, chunk of its rows, group of columns and ranks), groups fastest, so
// that a row is read whole at about the same time; the warps of a block take neighbouring columns of the same rows. An
// expert with many rows is cut into chunks, whose sums go to `partials` in fp32; lora_gradient_reduce adds them in
// order. No atomics: results are bitwise repeatable.
//
// STEPS steps of 16 rows are under way for each warp, across items: while one is summed and written, the rows of the
// next are coming, and the indices of the rows after those.
//
// Shared memory
//   WARPS x STEPS x slot   a lane's pieces of four rows, then its ranks of these rows, then, with gates, their flat
//                          entries; pieces of the 32 lanes beside each other
//   prefix       (E + 1) x 4   chunks before each expert, at least one for each
//   slots        (E + 1) x 4   see gradient_slots
//   warp_totals  WARPS x 4
//
// Compile-time (struct C): E, WIDE_A and WIDE_B (columns; 0: that gradient is not wanted), ROWS_A, ROWS_B, RANK,
// RANK_STRIDE, TOP_K, HAS_GATES, TILE_C (columns of a warp, 64 or 128), TILE_R (8, 16, 32 or 64), STEPS, WARPS; types
// Element, Output, Gate, Index. The widths and RANK_STRIDE are multiples of 8, every row 16-byte aligned.
#pragma once

#include "args/lora_gradient.h"
#include "lora_gradient_pieces.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/mma.cuh"
#include "ptx/synchronise.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_mma {

using Args = LoraGradientPair;

constexpr int step_rows = 16;

template <class C>
struct Layout {
    static constexpr int threads = C::WARPS * 32;
    static constexpr int pieces = C::TILE_C / 64;  ///< 16-byte pieces that a lane copies of a row
    static constexpr int group_columns = C::WARPS * C::TILE_C;
    static constexpr int rank_tiles = ceil_div(C::RANK, C::TILE_R);
    static constexpr int groups_a = ceil_div(C::WIDE_A, group_columns) * rank_tiles;
    static constexpr int groups_b = ceil_div(C::WIDE_B, group_columns) * rank_tiles;
    static constexpr int groups = groups_a + groups_b;
    static constexpr int n_tiles = C::TILE_R / 8;
    /// Words of a lane's ranks of a row; a single rank comes with its neighbour.
    static constexpr int rank_words = n_tiles == 1 ? 1 : n_tiles / 2;
    static constexpr int rank_bytes = rank_words * 4;

    static constexpr int slot_ranks = 4 * pieces * 32 * 16;
    static constexpr int slot_entries = slot_ranks + 4 * 32 * rank_bytes;
    static constexpr int slot_bytes = slot_entries + (C::HAS_GATES != 0 ? 4 * 32 * 4 : 0);
    static constexpr int prefix = C::WARPS * C::STEPS * slot_bytes;

    static_assert(C::TILE_C == 64 || C::TILE_C == 128, "whole mma tiles for eight lanes of a row");
    static_assert(n_tiles == 1 || n_tiles == 2 || n_tiles == 4 || n_tiles == 8, "one copy for a lane's ranks of a row");
};

/// What one warp does of an item.
struct Piece {
    int side;
    int expert;
    int slot;  ///< in `partials`, -1: the expert's sums are complete
    int column;
    int first_rank;
    int begin, end;  ///< sorted positions
};

/// Where a block is in its items, which are chunk * groups + group.
template <class C>
struct Place {
    using L = Layout<C>;
    using Index = typename C::Index;

    const Args& args;
    const int* prefix;
    const int* slots;
    int item;

    [[nodiscard]] __device__ __forceinline__ bool more() const { return item < prefix[C::E] * L::groups; }
    __device__ __forceinline__ void advance() { item += static_cast<int>(gridDim.x); }

    [[nodiscard]] __device__ __forceinline__ Piece piece() const {
        const int chunk = item / L::groups;
        const int group = item % L::groups;
        // groups_a of them are side a's, spread evenly.
        const int a_before = group * L::groups_a / L::groups;
        Piece piece;
        piece.side = (group + 1) * L::groups_a / L::groups > a_before ? side_a : side_b;
        const int own = piece.side == side_a ? a_before : group - a_before;
        piece.column = own / L::rank_tiles * L::group_columns + static_cast<int>(threadIdx.x) / 32 * C::TILE_C;
        piece.first_rank = own % L::rank_tiles * C::TILE_R;
        piece.expert = prefix[C::E] == C::E ? chunk : group_of<C::E>(prefix, chunk);
        const auto* const offsets = static_cast<const Index*>(args.a.expert_offsets);
        piece.begin = first_row(offsets, piece.expert);
        piece.end = static_cast<int>(offsets[piece.expert]);
        piece.slot = -1;
        if (prefix[C::E] != C::E && prefix[piece.expert + 1] - prefix[piece.expert] > 1) {
            const int own_chunk = chunk - prefix[piece.expert];
            piece.slot = slots[piece.expert] + own_chunk;
            piece.begin += own_chunk * args.a.chunk_rows;
            if (piece.begin + args.a.chunk_rows < piece.end) piece.end = piece.begin + args.a.chunk_rows;
        }
        // A warp beyond the columns has no rows to sum.
        if (piece.column >= (piece.side == side_a ? C::WIDE_A : C::WIDE_B)) piece.end = piece.begin;
        return piece;
    }
};

/// Copies the steps of this warp's pieces, one after the other, ahead of their products.
template <class C>
struct Copier {
    using L = Layout<C>;
    using Element = typename C::Element;
    using Index = typename C::Index;

    const Args& args;
    Place<C> place;
    int side = 0;
    int first = 0, end = 0;              ///< sorted positions: of the step that is copied next, of its piece
    unsigned pitch = 0;                  ///< from row to row, in units of 16 bytes
    const Element* wide = nullptr;       ///< this lane's columns of row 0
    const Element* rank_rows = nullptr;  ///< this lane's ranks of row 0
    int columns_left = 0;                ///< from this lane's first on
    int entry = 0;                       ///< flat entry of row lane % 16 of the step

    /// Goes to the first piece with rows, from `place` on.
    __device__ __forceinline__ void seek() {
        first = end = 0;
        for (; place.more(); place.advance()) {
            const Piece piece = place.piece();
            if (piece.begin == piece.end) continue;
            side = piece.side;
            first = piece.begin;
            end = piece.end;
            const LoraGradientArgs& own = side == side_a ? args.a : args.b;
            pitch = static_cast<unsigned>(own.wide_stride / 8);
            const int lane = static_cast<int>(threadIdx.x) % 32;
            int rank = piece.first_rank + lane / 4 * L::n_tiles / 2 * 2;
            // Ranks that are not there are not written either; what is copied for them does not matter.
            if (rank >= C::RANK_STRIDE) rank = 0;
            wide = static_cast<const Element*>(own.wide) + piece.column + lane / 4 * 8;
            rank_rows = static_cast<const Element*>(own.rank_rows) + rank;
            columns_left = (side == side_a ? C::WIDE_A : C::WIDE_B) - piece.column - lane / 4 * 8;
            break;
        }
        find_rows();
    }

    __device__ __forceinline__ void find_rows() {
        if constexpr (C::ROWS_A != rows_grouped || C::ROWS_B != rows_grouped || C::HAS_GATES != 0) {
            const int position = first + static_cast<int>(threadIdx.x) % 16;
            if (position < end) entry = static_cast<int>(static_cast<const Index*>(args.a.scattered_idxs)[position]);
        }
    }

    /// Begins the copies of the next step to `slot`, and looks up the rows of the one after. Rows past the piece's end,
    /// and columns past the row's, become zeros.
    __device__ __forceinline__ void copy(unsigned char* slot, unsigned target) {
        if (first >= end) return;
        const int lane = static_cast<int>(threadIdx.x) % 32;
        const int position = first + lane % 4;
        const int rows = end - position;
        const Element* const ranks = rank_rows + static_cast<int64>(position) * C::RANK_STRIDE;
        const unsigned to = target + static_cast<unsigned>(lane) * 16U;
        const unsigned ranks_to = target + static_cast<unsigned>(L::slot_ranks + lane * 4 * L::rank_bytes);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            // Rows i * 4 + lane % 4: the ranks of four neighbouring rows lie in one or few cache lines.
            const bool inside = i * 4 < rows;
            const int flat = __shfl_sync(0xffffffffU, entry, i * 4 + lane % 4);
            const int row = side == side_a ? row_of<C::ROWS_A, C::TOP_K>(position + i * 4, flat)
                                           : row_of<C::ROWS_B, C::TOP_K>(position + i * 4, flat);
            const auto* const from = reinterpret_cast<const Vec16*>(wide) + static_cast<unsigned>(row) * pitch;
#pragma unroll
            for (int p = 0; p < L::pieces; ++p) {
                const bool there =
                    inside && ((C::WIDE_A % C::TILE_C == 0 && C::WIDE_B % C::TILE_C == 0) || columns_left > p * 64);
                ptx::cp_async_16(to + static_cast<unsigned>((i * L::pieces + p) * 512), from + p * 8, there ? 16U : 0U);
            }
            ptx::cp_async_shared_line<L::rank_bytes>(ranks_to + static_cast<unsigned>(i * L::rank_bytes),
                                                     ranks + i * 4 * C::RANK_STRIDE, inside ? L::rank_bytes : 0U);
            if constexpr (C::HAS_GATES != 0) {
                reinterpret_cast<int*>(slot + L::slot_entries)[lane * 4 + i] = inside ? flat : -1;
            }
        }
        first += step_rows;
        if (first < end) {
            find_rows();
        } else {
            place.advance();
            seek();
        }
    }
};

/// The lower halves of two words, or the upper ones.
__device__ __forceinline__ uint32 lower_halves(uint32 a, uint32 b) { return __byte_perm(a, b, 0x5410); }
__device__ __forceinline__ uint32 upper_halves(uint32 a, uint32 b) { return __byte_perm(a, b, 0x7632); }

template <class Element>
__device__ __forceinline__ uint32 times(uint32 pair, float factor) {
    return pack2<Element>(to_float(Element{static_cast<uint16>(pair & 0xffffU)}) * factor,
                          to_float(Element{static_cast<uint16>(pair >> 16)}) * factor);
}

/// sums += the rows of one step.
template <class C>
__device__ __forceinline__ void multiply(float (&sums)[Layout<C>::pieces][4][Layout<C>::n_tiles][4],
                                         const unsigned char* slot, const float (&gates)[4]) {
    using L = Layout<C>;
    using Element = typename C::Element;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    struct alignas(16) Ranks {
        uint32 word[4][L::rank_words];
    };
    Ranks ranks = reinterpret_cast<const Ranks*>(slot + L::slot_ranks)[lane];
    if constexpr (C::HAS_GATES != 0) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int w = 0; w < L::rank_words; ++w) ranks.word[i][w] = times<Element>(ranks.word[i][w], gates[i]);
        }
    }
    uint32 right[L::n_tiles][2];
#pragma unroll
    for (int n = 0; n < L::n_tiles; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint32 one = ranks.word[i * 2][n / 2];
            const uint32 other = ranks.word[i * 2 + 1][n / 2];
            const bool upper = L::n_tiles == 1 ? lane / 4 % 2 == 1 : n % 2 == 1;
            right[n][i] = upper ? upper_halves(one, other) : lower_halves(one, other);
        }
    }
#pragma unroll
    for (int p = 0; p < L::pieces; ++p) {
        Vec16 wide[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) wide[i] = reinterpret_cast<const Vec16*>(slot)[(i * L::pieces + p) * 32 + lane];
#pragma unroll
        for (int m = 0; m < 4; ++m) {
            const uint32 left[4] = {
                lower_halves(wide[0].word[m], wide[1].word[m]), upper_halves(wide[0].word[m], wide[1].word[m]),
                lower_halves(wide[2].word[m], wide[3].word[m]), upper_halves(wide[2].word[m], wide[3].word[m])};
#pragma unroll
            for (int n = 0; n < L::n_tiles; ++n) {
                ptx::mma_m16n8k16<Element>(sums[p][m][n], left, right[n][0], right[n][1]);
            }
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
                                           const Piece& piece, int first_column) {
    using L = Layout<C>;
    using Output = typename C::Output;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int column = first_column + lane / 4 * 8;
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
__device__ __forceinline__ void write(const float (&sums)[Layout<C>::pieces][4][Layout<C>::n_tiles][4],
                                      const Args& args, const Piece& piece) {
#pragma unroll
    for (int p = 0; p < Layout<C>::pieces; ++p) {
        const int column = piece.column + p * 64;
        if (piece.side == side_a) {
            if constexpr (C::WIDE_A > 0) write_side<C, C::WIDE_A>(sums[p], args.a, piece, column);
        } else {
            if constexpr (C::WIDE_B > 0) write_side<C, C::WIDE_B>(sums[p], args.b, piece, column);
        }
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using L = Layout<C>;
    using Index = typename C::Index;
    extern __shared__ __align__(16) unsigned char shared[];
    int* const prefix = reinterpret_cast<int*>(shared + L::prefix);
    int* const slots = prefix + C::E + 1;
    int* const warp_totals = slots + C::E + 1;
    const auto* const offsets = static_cast<const Index*>(args.a.expert_offsets);
    const int chunk_rows = args.a.chunk_rows;
    ptx::let_next_kernel_begin();
    prefix_counts<C::E, L::threads>(prefix, warp_totals,
                                    [&](int expert) { return gradient_chunks(offsets, expert, chunk_rows); });
    gradient_slots<C::E, L::threads>(slots, warp_totals, offsets, chunk_rows);
    unsigned char* const slots_of_warp = shared + threadIdx.x / 32 * C::STEPS * L::slot_bytes;
    const unsigned targets = ptx::shared_address(slots_of_warp);

    Place<C> place{args, prefix, slots, static_cast<int>(blockIdx.x)};
    Copier<C> copier{args, place};
    copier.seek();
#pragma unroll 1
    for (int step = 0; step < C::STEPS - 1; ++step) {
        copier.copy(slots_of_warp + step * L::slot_bytes, targets + static_cast<unsigned>(step * L::slot_bytes));
        ptx::cp_async_commit();
    }
    int current = 0;
    for (; place.more(); place.advance()) {
        float sums[L::pieces][4][L::n_tiles][4] = {};
        const Piece piece = place.piece();
#pragma unroll 1
        for (int rows = piece.end - piece.begin; rows > 0; rows -= step_rows) {
            const unsigned char* const slot = slots_of_warp + current * L::slot_bytes;
            float gates[4] = {};
            if constexpr (C::HAS_GATES != 0) {
                const int* const entries = reinterpret_cast<const int*>(slot + L::slot_entries) + threadIdx.x % 32 * 4;
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (entries[i] >= 0) {
                        gates[i] = to_float(static_cast<const typename C::Gate*>(args.a.gates)[entries[i]]);
                    }
                }
            }
            const int free = current == 0 ? C::STEPS - 1 : current - 1;
            copier.copy(slots_of_warp + free * L::slot_bytes, targets + static_cast<unsigned>(free * L::slot_bytes));
            ptx::cp_async_commit();
            ptx::cp_async_wait<C::STEPS - 1>();
            multiply<C>(sums, slot, gates);
            current = current == C::STEPS - 1 ? 0 : current + 1;
        }
        // Found again rather than kept in registers.
        write<C>(sums, args, place.piece());
    }
    ptx::cp_async_wait<0>();
}

}  // namespace smlora::lora_gradient_mma
