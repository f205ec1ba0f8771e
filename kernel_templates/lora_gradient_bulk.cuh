// Gradients of the adapter on tensor cores, sm_90 and up: dA_e = yb_e^T x_e and dB_e = dy_e^T xa_e in one launch,
// products whose reduction runs over the rows of an expert. Streams the wide operands (x and dy) once.
//
// Rows are scattered, but each is contiguous: one bulk copy brings SPAN columns of a row, and no thread spends
// instructions on it. The reduction may take rows in any order and a product may take columns in any
// order, as long as both operands and the output agree: a lane reads 8 neighbouring columns of four rows, and the
// halves of two rows' words, put together, are the pair of neighbours along the reduction that mma wants. The same for
// the rank rows. What lies in a lane's accumulators at the end are neighbours again, 8 columns by TILE_R / 4 ranks.
//
// Blocks of a persistent grid walk the items (expert, chunk of its rows, span of columns, rank tile), the last fastest,
// or the span slowest where the arguments ask for it. An expert with many rows is cut into chunks, whose sums go to
// `partials` in fp32; lora_gradient_reduce adds them in order. No atomics: results are bitwise repeatable.
//
// Roles: the last warp copies, 16 rows a stage, and runs ahead across items; the WARPS others multiply and write,
// TILE_C columns each. Shared memory: args/lora_gradient_bulk.h.
//
// Compile-time (struct C): E, WIDE_A and WIDE_B (columns; 0: that gradient is not wanted), ROWS_A, ROWS_B, RANK,
// RANK_STRIDE, TOP_K, HAS_GATES, TILE_C (64 or 128), TILE_R (8, 16, 32 or 64), STAGES, WARPS; types Element, Output,
// Gate, Index. The widths and RANK_STRIDE are multiples of 8, every row 16-byte aligned.
#pragma once

#include "args/lora_gradient.h"
#include "args/lora_gradient_bulk.h"
#include "lora_gradient_items.cuh"
#include "lora_gradient_pieces.cuh"
#include "ptx/bulk_copy.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/l2_policy.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/mma.cuh"
#include "ptx/synchronise.cuh"
#include "ring.cuh"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_bulk {

using Args = LoraGradientPair;

template <class C>
struct Layout {
    static constexpr Blocking blocking{C::TILE_C, C::TILE_R, C::WARPS, C::STAGES};
    static constexpr SharedMemory memory = shared_memory(blocking, C::E, C::RANK_STRIDE, C::HAS_GATES != 0);
    static constexpr int threads = lora_gradient_bulk::threads(blocking);
    static constexpr int pieces = C::TILE_C / 64;  ///< of 16 bytes that a lane reads of a row
    static constexpr int span = lora_gradient_bulk::span(blocking);
    static constexpr int n_tiles = C::TILE_R / 8;
    static constexpr int rank_words = n_tiles == 1 ? 1 : n_tiles / 2;  ///< of a lane's ranks of a row
    static constexpr int rank_tiles = ceil_div(C::RANK, C::TILE_R);
    /// Of the warp that copies, how many arrive for a stage: the first, and every lane that stores a gate.
    static constexpr int filling_lanes = C::HAS_GATES != 0 ? step_rows : 1;

    static_assert(C::TILE_C == 64 || C::TILE_C == 128, "whole mma tiles for eight lanes of a row");
    static_assert(n_tiles == 1 || n_tiles == 2 || n_tiles == 4 || n_tiles == 8, "one load for a lane's ranks of a row");

    static __device__ __forceinline__ unsigned filled(unsigned base, int stage) {
        return base + memory.barriers + stage * 8;
    }
    static __device__ __forceinline__ unsigned emptied(unsigned base, int stage) {
        return base + memory.barriers + (C::STAGES + stage) * 8;
    }
};

template <class C>
using Items = GradientItems<C, Layout<C>::span, C::TILE_C, Layout<C>::rank_tiles>;

/// The warp that copies. Its lanes look 32 rows up at once, two steps of them, while the 32 before are copied: each
/// half of the warp its own step, a row a lane, the rank rows by the first lane of the other half.
template <class C>
__device__ __forceinline__ void produce(const Args& args, unsigned char* shared, const Items<C>& items) {
    using L = Layout<C>;
    using Element = typename C::Element;
    const unsigned base = ptx::shared_address(shared);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int own = lane % step_rows;
    const auto* const scattered = static_cast<const typename C::Index*>(args.a.scattered_idxs);
    const int count = items.count();
    Ring<C::STAGES> ring;
    for (int i = static_cast<int>(blockIdx.x); i < count; i += static_cast<int>(gridDim.x)) {
        const GradientItem item = items.at(i);
        const bool a = item.side == side_a;
        const auto* const wide = static_cast<const Element*>(a ? args.a.wide : args.b.wide) + item.column;
        const auto* const rank_rows = static_cast<const Element*>(a ? args.a.rank_rows : args.b.rank_rows);
        const int64 pitch = a ? args.a.wide_stride : args.b.wide_stride;
        const auto bytes = static_cast<unsigned>(item.width) * 2U;
        const unsigned long long policy = ptx::l2_policy(C::TOP_K == 1 || (a ? C::ROWS_A : C::ROWS_B) != rows_token);
        const auto flat_of = [&](int position) {
            return position < item.end ? static_cast<int>(scattered[position]) : 0;
        };
        int flat = flat_of(item.begin + lane);
        for (int batch = item.begin; batch < item.end; batch += 32) {
            const int position = batch + lane;
            const int row = a ? RowsA<C>::index(position, flat) : RowsB<C>::index(position, flat);
            float gate = 0.0F;
            if constexpr (C::HAS_GATES != 0) {
                if (position < item.end) gate = to_float(static_cast<const typename C::Gate*>(args.a.gates)[flat]);
            }
            flat = flat_of(position + 32);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int first = batch + half * step_rows;
                if (first >= item.end) break;
                const int rows = item.end - first < step_rows ? item.end - first : step_rows;
                const bool mine = lane / step_rows == half;
                ptx::mbarrier_wait(L::emptied(base, ring.stage), ring.parity ^ 1U);
                const unsigned barrier = L::filled(base, ring.stage);
                const unsigned stage = base + static_cast<unsigned>(ring.stage * L::memory.stage_bytes);
                if (mine && own < rows) {
                    ptx::bulk_copy(stage + static_cast<unsigned>(own * L::memory.pitch), wide + row * pitch, bytes,
                                   barrier, policy);
                } else if (!mine && own == 0) {
                    ptx::bulk_copy(stage + L::memory.stage_ranks,
                                   rank_rows + static_cast<int64>(first) * C::RANK_STRIDE,
                                   static_cast<unsigned>(rows * L::memory.rank_bytes), barrier, ptx::l2_policy(false));
                }
                // Only here is the gate waited for: it arrives while the copies are given out.
                if constexpr (C::HAS_GATES != 0) {
                    if (mine)
                        reinterpret_cast<float*>(shared + ring.stage * L::memory.stage_bytes +
                                                 L::memory.stage_gates)[own] = gate;
                }
                __syncwarp();
                // Copies may be done before their bytes are announced: the stage is not filled without these arrivals.
                if (mine && own == 0) {
                    ptx::mbarrier_arrive_expect(barrier, static_cast<unsigned>(rows) * (bytes + L::memory.rank_bytes));
                } else if (mine && own < L::filling_lanes) {
                    ptx::mbarrier_arrive(barrier);
                }
                ring.next();
            }
        }
    }
}

/// The lower halves of two words, or the upper ones.
__device__ __forceinline__ uint32 lower_halves(uint32 a, uint32 b) { return __byte_perm(a, b, 0x5410); }
__device__ __forceinline__ uint32 upper_halves(uint32 a, uint32 b) { return __byte_perm(a, b, 0x7632); }

template <class Element>
__device__ __forceinline__ uint32 times(uint32 pair, float factor) {
    return pack2<Element>(to_float(Element{static_cast<uint16>(pair & 0xffffU)}) * factor,
                          to_float(Element{static_cast<uint16>(pair >> 16)}) * factor);
}

/// sums += the rows of one stage, of which `rows` are there; columns from `column` of the span on.
template <class C>
__device__ __forceinline__ void multiply(float (&sums)[Layout<C>::pieces][4][Layout<C>::n_tiles][4],
                                         const unsigned char* stage, int column, int first_rank, int rows) {
    using L = Layout<C>;
    using Element = typename C::Element;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    // The lane's rows are i * 4 + lane % 4.
    uint32 ranks[4][L::rank_words];
    int rank = first_rank + lane / 4 * L::n_tiles / 2 * 2;
    // Ranks that are not there are not written either; what is multiplied for them does not matter.
    if (rank >= C::RANK_STRIDE) rank = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int row = i * 4 + lane % 4;
        struct alignas(L::rank_words * 4) Words {
            uint32 word[L::rank_words];
        };
        const Words words =
            *reinterpret_cast<const Words*>(stage + L::memory.stage_ranks + row * L::memory.rank_bytes + rank * 2);
#pragma unroll
        for (int w = 0; w < L::rank_words; ++w) {
            uint32 pair = words.word[w];
            if constexpr (C::HAS_GATES != 0) {
                pair = times<Element>(pair, reinterpret_cast<const float*>(stage + L::memory.stage_gates)[row]);
            }
            ranks[i][w] = row < rows ? pair : 0U;
        }
    }
    uint32 right[L::n_tiles][2];
#pragma unroll
    for (int n = 0; n < L::n_tiles; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint32 one = ranks[i * 2][n / 2];
            const uint32 other = ranks[i * 2 + 1][n / 2];
            const bool upper = L::n_tiles == 1 ? lane / 4 % 2 == 1 : n % 2 == 1;
            right[n][i] = upper ? upper_halves(one, other) : lower_halves(one, other);
        }
    }
    const unsigned char* const own = stage + lane % 4 * L::memory.pitch + (column + lane / 4 * 8) * 2;
#pragma unroll
    for (int p = 0; p < L::pieces; ++p) {
        Vec16 wide[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            wide[i] = *reinterpret_cast<const Vec16*>(own + i * 4 * L::memory.pitch + p * 128);
            // What an earlier step has left there may be no number.
            if (i * 4 + lane % 4 >= rows) wide[i] = Vec16{};
        }
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

/// Writes an item's sums: whole vectors along whichever direction is contiguous outside.
template <class C, int WIDE>
__device__ __forceinline__ void write_side(const float (&sums)[4][Layout<C>::n_tiles][4], const LoraGradientArgs& args,
                                           const GradientItem& item, int first_column) {
    using L = Layout<C>;
    using Output = typename C::Output;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int column = first_column + lane / 4 * 8;
    if (column >= WIDE) return;
    constexpr int own_ranks = 2 * L::n_tiles;  // neighbours
    const int first_rank = item.rank_tile * C::TILE_R + lane % 4 * own_ranks;
    // Column c of the lane's 8 and rank r of its own_ranks.
    const auto sum = [&](int c, int r) { return sums[c / 2][r % L::n_tiles][c % 2 * 2 + r / L::n_tiles]; };
    if (item.slot >= 0) {
        auto* const slot = static_cast<float*>(args.partials) + static_cast<int64>(item.slot) * C::RANK * WIDE + column;
#pragma unroll
        for (int r = 0; r < own_ranks; ++r) {
            if (first_rank + r >= C::RANK) break;
            const float values[8] = {sum(0, r), sum(1, r), sum(2, r), sum(3, r),
                                     sum(4, r), sum(5, r), sum(6, r), sum(7, r)};
            store_neighbours(slot + static_cast<int64>(first_rank + r) * WIDE, values, true);
        }
        return;
    }
    auto* const out = static_cast<Output*>(args.out) +
                      GradientGroups<C>::adapter_of(item.group) * args.out_expert_stride +
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
                                      const Args& args, const GradientItem& item, int first_column) {
#pragma unroll
    for (int p = 0; p < Layout<C>::pieces; ++p) {
        const int column = first_column + p * 64;
        if (item.side == side_a) {
            if constexpr (C::WIDE_A > 0) write_side<C, C::WIDE_A>(sums[p], args.a, item, column);
        } else {
            if constexpr (C::WIDE_B > 0) write_side<C, C::WIDE_B>(sums[p], args.b, item, column);
        }
    }
}

/// One warp that multiplies.
template <class C>
__device__ __forceinline__ void consume(const Args& args, unsigned char* shared, const Items<C>& items) {
    using L = Layout<C>;
    const unsigned base = ptx::shared_address(shared);
    const int column = static_cast<int>(threadIdx.x) / 32 * C::TILE_C;
    const int count = items.count();
    Ring<C::STAGES> ring;
    for (int i = static_cast<int>(blockIdx.x); i < count; i += static_cast<int>(gridDim.x)) {
        const GradientItem item = items.at(i);
        float sums[L::pieces][4][L::n_tiles][4] = {};
#pragma unroll 1
        for (int rows = item.end - item.begin; rows > 0; rows -= step_rows) {
            ptx::mbarrier_wait(L::filled(base, ring.stage), ring.parity);
            const unsigned char* const stage = shared + ring.stage * L::memory.stage_bytes;
            if (column < item.width) {
                // Known to be whole, a step needs no look at its rows.
                if (rows >= step_rows) {
                    multiply<C>(sums, stage, column, item.rank_tile * C::TILE_R, step_rows);
                } else {
                    multiply<C>(sums, stage, column, item.rank_tile * C::TILE_R, rows);
                }
            }
            // Every lane gives the stage back for itself: racecheck reports no hazard then. With lane 0 alone, behind
            // __syncwarp(), it reports some, at the same speed.
            ptx::mbarrier_arrive(L::emptied(base, ring.stage));
            ring.next();
        }
        if (column < item.width) write<C>(sums, args, item, item.column + column);
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using L = Layout<C>;
    extern __shared__ __align__(128) unsigned char shared[];
    int* const prefix = reinterpret_cast<int*>(shared + L::memory.prefix);
    int* const slots = reinterpret_cast<int*>(shared + L::memory.slots);
    int* const warp_totals = reinterpret_cast<int*>(shared + L::memory.warp_totals);
    const GradientGroups<C> groups{static_cast<const typename C::Index*>(args.a.expert_offsets), args.a.M};
    if (threadIdx.x == 0) {
        const unsigned base = ptx::shared_address(shared);
        for (int stage = 0; stage < C::STAGES; ++stage) {
            ptx::mbarrier_init(L::filled(base, stage), L::filling_lanes);
            ptx::mbarrier_init(L::emptied(base, stage), C::WARPS * 32);
        }
        ptx::fence_mbarrier_init();
    }
    ptx::let_next_kernel_begin();
    const int uncut_rows = args.a.uncut_rows;
    prefix_counts<C::E, L::threads>(prefix, warp_totals,
                                    [&](int group) { return gradient_chunks<C>(groups, group, uncut_rows); });
    gradient_slots<L::threads, C>(slots, warp_totals, groups, uncut_rows);
    const Items<C> items{prefix, slots, args};
    if (threadIdx.x / 32 == C::WARPS) {
        produce<C>(args, shared, items);
    } else {
        consume<C>(args, shared, items);
    }
}

}  // namespace smlora::lora_gradient_bulk
