// Gradients of the adapter on tensor cores, sm_80 and up: dA_e = yb_e^T x_e and dB_e = dy_e^T xa_e in one launch,
// products whose reduction runs over the rows of an expert. Streams the wide operands (x and dy) once.
//
// A persistent grid walks the pieces (expert, chunk of rows, side, column tile, rank tile), tiles fastest, so that the
// blocks that share rows run together. An expert with many rows is cut into chunks, whose sums go to `partials` in
// fp32; lora_gradient_reduce adds them in order. No atomics: results are bitwise repeatable.
//
// The cp.async pipeline, STAGES deep, runs on across pieces: while one piece is summed and written, the rows of the
// next are on their way, and the indices of the rows after those.
//
// Roles: all warps copy, then all multiply; warp w owns TILE_C / WARPS columns of the tile and all its TILE_R ranks.
//
// Shared memory: args/lora_gradient_mma.h.
//
// Compile-time (struct C): E, WIDE_A and WIDE_B (columns; 0: that gradient is not wanted), ROWS_A, ROWS_B, RANK,
// RANK_STRIDE, TOP_K, HAS_GATES, TILE_C, TILE_R, TILE_K, WARPS, STAGES; types Element, Output, Gate, Index. The widths
// and RANK_STRIDE are multiples of 8, every row 16-byte aligned.
#pragma once

#include "args/lora_gradient.h"
#include "args/lora_gradient_mma.h"
#include "lora_gradient_pieces.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"
#include "ptx/synchronise.cuh"
#include "swizzle.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_mma {

using Args = LoraGradientPair;

template <class C>
struct Layout {
    static constexpr Blocking blocking{C::TILE_C, C::TILE_R, C::TILE_K, C::WARPS, C::STAGES};
    static constexpr SharedMemory memory = shared_memory(blocking, C::E);
    static constexpr int threads = lora_gradient_mma::threads(blocking);
    static constexpr int warp_c = C::TILE_C / C::WARPS;
    static constexpr int c_tiles = warp_c / 16;
    static constexpr int r_tiles = C::TILE_R / 8;
    static constexpr int c_chunks = C::TILE_C / 8;
    static constexpr int r_chunks = C::TILE_R / 8;
    static constexpr int rank_tiles = ceil_div(C::RANK, C::TILE_R);
    static constexpr int tiles_a = ceil_div(C::WIDE_A, C::TILE_C) * rank_tiles;
    static constexpr int tiles_b = ceil_div(C::WIDE_B, C::TILE_C) * rank_tiles;
    static constexpr int wide_rows_a_pass = threads / c_chunks;
    static constexpr int wide_passes = C::TILE_K / wide_rows_a_pass;

    static_assert(warp_c % 16 == 0 && C::TILE_R % 16 == 0 && C::TILE_K % 16 == 0, "mma pieces");
    static_assert(threads % c_chunks == 0 && C::TILE_K % wide_rows_a_pass == 0, "whole passes over the wide tile");
};

/// One piece of work.
struct Piece {
    int side;
    int group;
    int slot;  ///< in `partials`, -1: the expert's sums are complete
    int column;
    int first_rank;
    int begin, end;  ///< sorted positions
};

template <class C>
__device__ __forceinline__ Piece piece_of(int item, const int* prefix, const int* slots,
                                          const GradientGroups<C>& groups) {
    using L = Layout<C>;
    constexpr int tiles = L::tiles_a + L::tiles_b;
    const int chunk_item = item / tiles;
    int tile = item % tiles;
    Piece piece;
    piece.group = group_of<C::E>(prefix, chunk_item);
    const int chunk = chunk_item - prefix[piece.group];
    const int chunks = prefix[piece.group + 1] - prefix[piece.group];
    piece.slot = chunks > 1 ? slots[piece.group] + chunk : -1;
    piece.side = tile < L::tiles_a ? side_a : side_b;
    if (piece.side == side_b) tile -= L::tiles_a;
    piece.column = tile / L::rank_tiles * C::TILE_C;
    piece.first_rank = tile % L::rank_tiles * C::TILE_R;
    const RowRange rows = chunk_rows<C>(groups, piece.group, chunk, chunks);
    piece.begin = rows.begin;
    piece.end = rows.end;
    return piece;
}

/// Copies one stage's piece of rank rows, each row times its gate; with gates by plain loads and stores, as the gate
/// comes between.
template <class C>
__device__ __forceinline__ void copy_rank_rows(unsigned char* target, const LoraGradientArgs& a, const void* source,
                                               int first_row, int end, int first_rank) {
    using L = Layout<C>;
    using Element = typename C::Element;
    const auto* const rank_rows = static_cast<const Element*>(source);
    for (int item = static_cast<int>(threadIdx.x); item < C::TILE_K * L::r_chunks; item += L::threads) {
        const int row = item / L::r_chunks;
        const int chunk = item % L::r_chunks;
        const int rank = first_rank + chunk * 8;
        const int position = first_row + row;
        const bool inside = position < end && rank < C::RANK_STRIDE;
        const Element* const from =
            inside ? rank_rows + static_cast<int64>(position) * C::RANK_STRIDE + rank : rank_rows;
        unsigned char* const to = target + swizzled<L::r_chunks>(row, chunk);
        if constexpr (C::HAS_GATES == 0) {
            ptx::cp_async_16(ptx::shared_address(to), from, inside ? 16U : 0U);
        } else {
            Vec16 value = {};
            if (inside) {
                value = *reinterpret_cast<const Vec16*>(from);
                const auto flat = static_cast<const typename C::Index*>(a.scattered_idxs)[position];
                const float gate = to_float(static_cast<const typename C::Gate*>(a.gates)[flat]);
                const auto* const element = reinterpret_cast<const Element*>(&value);
                Vec16 gated;
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    gated.word[i] =
                        pack2<Element>(to_float(element[i * 2]) * gate, to_float(element[i * 2 + 1]) * gate);
                }
                value = gated;
            }
            *reinterpret_cast<Vec16*>(to) = value;
        }
    }
}

/// Copies the steps of this block's pieces, one after the other, ahead of their products.
template <class C>
struct Copier {
    using L = Layout<C>;
    using Element = typename C::Element;
    using Index = typename C::Index;

    const Args& args;
    const int* prefix;
    const int* slots;
    int items;
    int item;
    Piece piece;
    int first;                           ///< sorted position of the step that is copied next
    int source[Layout<C>::wide_passes];  ///< where this thread's rows of that step lie

    [[nodiscard]] __device__ __forceinline__ bool more() const { return item < items; }

    /// Goes to the first piece with rows from `from` on.
    __device__ __forceinline__ void seek(int from) {
        for (item = from; item < items; item += static_cast<int>(gridDim.x)) {
            const GradientGroups<C> groups{static_cast<const Index*>(args.a.expert_offsets), args.a.M};
            piece = piece_of<C>(item, prefix, slots, groups);
            if (piece.begin < piece.end) break;
        }
        first = piece.begin;
        find_rows();
    }

    __device__ __forceinline__ void find_rows() {
        if (!more()) return;
        const auto* const scattered = static_cast<const Index*>(args.a.scattered_idxs);
#pragma unroll
        for (int pass = 0; pass < L::wide_passes; ++pass) {
            const int position = first + static_cast<int>(threadIdx.x) / L::c_chunks + pass * L::wide_rows_a_pass;
            const int known = position < piece.end ? position : first;
            if constexpr (C::ROWS_A == rows_grouped && C::ROWS_B == rows_grouped) {
                source[pass] = known;
            } else {
                const int flat = static_cast<int>(scattered[known]);
                source[pass] = piece.side == side_a ? RowsA<C>::index(known, flat) : RowsB<C>::index(known, flat);
            }
        }
    }

    /// Begins the copies of the next step, and looks up the rows of the one after.
    __device__ __forceinline__ void copy(unsigned char* stage) {
        const bool a = piece.side == side_a;
        const auto* const wide = static_cast<const Element*>(a ? args.a.wide : args.b.wide);
        const int64 stride = a ? args.a.wide_stride : args.b.wide_stride;
        const int column = piece.column + static_cast<int>(threadIdx.x) % L::c_chunks * 8;
        const bool column_inside = column < (a ? C::WIDE_A : C::WIDE_B);
#pragma unroll
        for (int pass = 0; pass < L::wide_passes; ++pass) {
            const int row = static_cast<int>(threadIdx.x) / L::c_chunks + pass * L::wide_rows_a_pass;
            const bool inside = column_inside && first + row < piece.end;
            const Element* const from = inside ? wide + source[pass] * stride + column : wide;
            ptx::cp_async_16(
                ptx::shared_address(stage) + swizzled<L::c_chunks>(row, static_cast<int>(threadIdx.x) % L::c_chunks),
                from, inside ? 16U : 0U);
        }
        copy_rank_rows<C>(stage + L::memory.stage_ranks, args.a, a ? args.a.rank_rows : args.b.rank_rows, first,
                          piece.end, piece.first_rank);
        first += C::TILE_K;
        if (first < piece.end) {
            find_rows();
        } else {
            seek(item + static_cast<int>(gridDim.x));
        }
    }
};

/// sums += one stage's rows. Both operands lie with the reduction as rows: ldmatrix transposes them on the way.
template <class C>
__device__ __forceinline__ void multiply(float (&sums)[Layout<C>::c_tiles][Layout<C>::r_tiles][4], unsigned stage) {
    using L = Layout<C>;
    const int lane = static_cast<int>(threadIdx.x) & 31;
    const int warp = static_cast<int>(threadIdx.x) >> 5;
#pragma unroll
    for (int k16 = 0; k16 < C::TILE_K / 16; ++k16) {
        unsigned b[L::r_tiles / 2][4];
#pragma unroll
        for (int r = 0; r < L::r_tiles / 2; ++r) {
            const int row = k16 * 16 + (lane & 15);
            ptx::ldmatrix_x4_trans(b[r],
                                   stage + L::memory.stage_ranks + swizzled<L::r_chunks>(row, r * 2 + (lane >> 4)));
        }
#pragma unroll
        for (int c = 0; c < L::c_tiles; ++c) {
            unsigned a[4];
            const int row = k16 * 16 + (lane & 7) + ((lane >> 4) << 3);
            const int chunk = (warp * L::warp_c + c * 16) / 8 + ((lane >> 3) & 1);
            ptx::ldmatrix_x4_trans(a, stage + swizzled<L::c_chunks>(row, chunk));
#pragma unroll
            for (int r = 0; r < L::r_tiles; ++r) {
                ptx::mma_m16n8k16<typename C::Element>(sums[c][r], a, b[r / 2][(r & 1) * 2], b[r / 2][(r & 1) * 2 + 1]);
            }
        }
    }
}

/// Writes a piece's sums: through shared memory as [rank][column], then along whichever direction is contiguous
/// outside.
template <class C>
__device__ __forceinline__ void write(const float (&sums)[Layout<C>::c_tiles][Layout<C>::r_tiles][4], float* staging,
                                      const Args& args, const Piece& piece) {
    using L = Layout<C>;
    using Output = typename C::Output;
    const int lane = static_cast<int>(threadIdx.x) & 31;
    const int warp = static_cast<int>(threadIdx.x) >> 5;
    // The last piece has been written from the staging.
    __syncthreads();
#pragma unroll
    for (int c = 0; c < L::c_tiles; ++c) {
#pragma unroll
        for (int r = 0; r < L::r_tiles; ++r) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int column = warp * L::warp_c + c * 16 + (lane >> 2) + (i >> 1) * 8;
                const int rank = r * 8 + (lane & 3) * 2 + (i & 1);
                staging[rank * staging_pitch(L::blocking) + column] = sums[c][r][i];
            }
        }
    }
    __syncthreads();
    const bool a = piece.side == side_a;
    const int width = a ? C::WIDE_A : C::WIDE_B;
    const int64 expert_stride = a ? args.a.out_expert_stride : args.b.out_expert_stride;
    const int64 wide_stride = a ? args.a.out_wide_stride : args.b.out_wide_stride;
    const int64 rank_stride = a ? args.a.out_rank_stride : args.b.out_rank_stride;
    auto* const out =
        static_cast<Output*>(a ? args.a.out : args.b.out) + GradientGroups<C>::adapter_of(piece.group) * expert_stride;
    auto* const partials = static_cast<float*>(a ? args.a.partials : args.b.partials);
    const bool along_columns = piece.slot >= 0 || wide_stride == 1;
    for (int i = static_cast<int>(threadIdx.x); i < C::TILE_C * C::TILE_R; i += L::threads) {
        const int c = along_columns ? i % C::TILE_C : i / C::TILE_R;
        const int r = along_columns ? i / C::TILE_C : i % C::TILE_R;
        const int column = piece.column + c;
        const int rank = piece.first_rank + r;
        if (column >= width || rank >= C::RANK) continue;
        const float value = staging[r * staging_pitch(L::blocking) + c];
        if (piece.slot >= 0) {
            partials[(static_cast<int64>(piece.slot) * C::RANK + rank) * width + column] = value;
        } else {
            out[column * wide_stride + rank * rank_stride] = from_float<Output>(value);
        }
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using L = Layout<C>;
    using Index = typename C::Index;
    extern __shared__ __align__(128) unsigned char shared[];
    auto* const staging = reinterpret_cast<float*>(shared + L::memory.staging);
    int* const prefix = reinterpret_cast<int*>(shared + L::memory.prefix);
    int* const slots = reinterpret_cast<int*>(shared + L::memory.slots);
    int* const warp_totals = reinterpret_cast<int*>(shared + L::memory.warp_totals);
    const GradientGroups<C> groups{static_cast<const typename C::Index*>(args.a.expert_offsets), args.a.M};
    const int uncut_rows = args.a.uncut_rows;
    ptx::let_next_kernel_begin();
    prefix_counts<C::E, L::threads>(prefix, warp_totals,
                                    [&](int group) { return gradient_chunks<C>(groups, group, uncut_rows); });
    gradient_slots<L::threads, C>(slots, warp_totals, groups, uncut_rows);
    const int items = prefix[C::E] * (L::tiles_a + L::tiles_b);

    Copier<C> copier{args, prefix, slots, items, 0, {}, 0, {}};
    copier.seek(static_cast<int>(blockIdx.x));
#pragma unroll
    for (int stage = 0; stage < C::STAGES - 1; ++stage) {
        if (copier.more()) copier.copy(shared + stage * L::memory.stage_bytes);
        ptx::cp_async_commit();
    }
    int stage = 0;
    for (int item = static_cast<int>(blockIdx.x); item < items; item += static_cast<int>(gridDim.x)) {
        const Piece piece = piece_of<C>(item, prefix, slots, groups);
        float sums[L::c_tiles][L::r_tiles][4] = {};
        for (int first = piece.begin; first < piece.end; first += C::TILE_K) {
            ptx::cp_async_wait<C::STAGES - 2>();
            // This step has arrived, and every warp has read the stage that is copied over next.
            __syncthreads();
            const int free = stage == 0 ? C::STAGES - 1 : stage - 1;
            if (copier.more()) copier.copy(shared + free * L::memory.stage_bytes);
            ptx::cp_async_commit();
            multiply<C>(sums, ptx::shared_address(shared) + static_cast<unsigned>(stage * L::memory.stage_bytes));
            stage = stage == C::STAGES - 1 ? 0 : stage + 1;
        }
        write<C>(sums, staging, args, piece);
    }
    ptx::cp_async_wait<0>();
}

}  // namespace smlora::lora_gradient_mma
