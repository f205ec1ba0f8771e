// The warpgroups that multiply. Operands are swapped: wgmma's m side is the weight's columns and its n side the rows,
// so that a tile is as high as its rows need, in steps of 8.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "epilogue.cuh"
#include "grouped_product_wgmma/tile.cuh"
#include "ptx/flag.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/shared.cuh"
#include "ptx/stmatrix.cuh"
#include "ptx/synchronise.cuh"
#include "ptx/wgmma.cuh"
#include "swizzle.cuh"
#include "wgmma_operand.cuh"

namespace smlora::grouped_product_wgmma {

/// The barrier of both multiplying warpgroups; 0 is the whole block's.
constexpr int consumers_barrier = 1;

/// One multiplying warpgroup: `half` of the tile's columns, all of its rows.
template <class C>
struct Consumer {
    using L = Layout<C>;
    using Element = typename C::Element;
    using Finish = Epilogue<C, false>;

    /// m64 that this warpgroup takes of the rank rows.
    template <int N>
    static constexpr int rank_windows = N > 128 && L::makes_rank_rows ? 2 : 1;

    const GroupedProductWgmmaArgs& args;
    unsigned base;
    int half;
    Ring<C::STAGES> ring;
    Ring<L::slots> slots;
    unsigned left_parity = 1;  // of the last tile's output

    /// Operand of k16 step `k` of reduction-contiguous rows of `pitch` bytes.
    static __device__ __forceinline__ uint64 rows(unsigned target, int pitch, int k) {
        return wgmma_operand(target + static_cast<unsigned>(k) * 32U, pitch, static_cast<unsigned>(8 * pitch), 0);
    }

    /// Operand of k16 step `k` of the rank matrix.
    static __device__ __forceinline__ uint64 rank_matrix(unsigned target, int k) {
        if constexpr (C::RANK_MAJOR == 0) {
            return rows(target, 128, k);
        } else {
            return wgmma_operand(target + static_cast<unsigned>(k * 16 * L::rank_pitch), L::rank_pitch,
                                 8 * L::rank_pitch, 0);
        }
    }

    __device__ __forceinline__ void wait_filled() const {
        ptx::mbarrier_wait(L::filled(base, ring.stage), ring.parity);
        // The rows came through the generic proxy.
        ptx::fence_proxy_async();
    }

    __device__ __forceinline__ void give_back(int stage) const {
        if ((threadIdx.x & 31U) != 0) return;
        ptx::mbarrier_arrive(L::emptied(base, stage));
        // The other block copies weights into this stage, too.
        if constexpr (C::CLUSTER == 2) {
            ptx::mbarrier_arrive_remote(L::emptied(base, stage), ptx::cluster_block_rank() ^ 1U);
        }
    }

    /// sums += adapter weights at `weights_at` x rank rows at `rows_at`, one step over the rank.
    template <int N>
    __device__ __forceinline__ void multiply_adapter(float (&sums)[2][N / 2], unsigned weights_at,
                                                     unsigned rows_at) const {
#pragma unroll
        for (int k = 0; k < L::rank_depth / 16; ++k) {
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                L::AdapterWeight::template multiply<N>(sums[m], weights_at, half * 2 + m, k,
                                                       rows(rows_at, L::rank_pitch, k));
            }
        }
    }

    /// First row of window `window` of the m64 that cover the rank rows of N rows. Each warpgroup makes one; the third,
    /// of more than 128 rows, both make. None goes beyond the tile's rows, so they overlap.
    template <int N>
    [[nodiscard]] __device__ __forceinline__ int window_row(int window) const {
        constexpr int last = N > 64 ? N - 64 : 0;
        if (window == 1) return last;
        return half == 0 ? 0 : last < 64 ? last : 64;
    }

    /// Rounds the rank rows, writes them out and, as an operand, to the staging, and announces them.
    template <int N>
    __device__ __forceinline__ void finish_rank_rows(const Tile& tile,
                                                     const float (&sums)[rank_windows<N>][L::rank_depth / 2]) const {
        const int lane = static_cast<int>(threadIdx.x) & 31;
        const int warp = (static_cast<int>(threadIdx.x) >> 5) & 3;
        if constexpr (!L::memory.lora_beside) {
            // Else the adapter's weights lie beside them already.
            ptx::mbarrier_wait(L::left(base), left_parity);
        }
#pragma unroll
        for (int window = 0; window < rank_windows<N>; ++window) {
#pragma unroll
            for (int i = 0; i < L::rank_depth / 4; ++i) {
                const float scale = ProductGroups<C>::scale_of(tile.group, args.rank_scale);
                const int row = window_row<N>(window) + warp * 16 + lane / 4 + i % 2 * 8;
                const int rank = i / 2 * 8 + lane % 4 * 2;
                const uint32 pair = pack2<Element>(sums[window][i * 2] * scale, sums[window][i * 2 + 1] * scale);
                // What another window or the other warpgroup has made, too.
                if (window == 1 ? row < 128 || half == 1 : row < half * 64) continue;
                if (row < C::TILE_ROWS) {
                    const unsigned to = base + L::memory.rank_rows + swizzled<L::rank_pitch / 16>(row, rank / 8) +
                                        static_cast<unsigned>(rank % 8 * 2);
                    ptx::store_shared(to, pair);
                }
                if (row < tile.rows && rank < C::RANK) {
                    auto* const out = static_cast<Element*>(args.rank_rows);
                    *reinterpret_cast<uint32*>(out + static_cast<int64>(tile.first_row + row) * C::RANK + rank) = pair;
                }
            }
        }
        ptx::fence_proxy_async();
        ptx::named_barrier_sync(consumers_barrier, 256);
        if (threadIdx.x % 256 == 0) ptx::set_flag(args.progress + 1 + tile.row_tile);
    }

    /// The steps of the reduction: sums and, if MAKES, the rank rows' sums. `last` is the stage of the last step, whose
    /// products may be under way still.
    template <int N, bool MAKES>
    __device__ __forceinline__ void multiply_steps(float (&sums)[2][N / 2],
                                                   float (&rank_sums)[rank_windows<N>][L::rank_depth / 2], int& last) {
#pragma unroll 1
        for (int step = 0; step < L::red_steps; ++step) {
            wait_filled();
            const unsigned stage = base + ring.stage * L::memory.stage_bytes;
            ptx::wgmma_fence();
#pragma unroll
            for (int k = 0; k < step_depth / 16; ++k) {
                const uint64 right = rows(stage + L::memory.weight_bytes, 128, k);
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    L::BaseWeight::template multiply<N>(sums[m], stage, half * 2 + m, k, right);
                }
                if constexpr (MAKES) {
                    // Here the rows are the m side, 64 of them at a time.
#pragma unroll
                    for (int window = 0; window < rank_windows<N>; ++window) {
                        const auto first = static_cast<unsigned>(window_row<N>(window)) * 128U;
                        ptx::Wgmma<Element, L::rank_depth, 0, C::RANK_MAJOR>::run(
                            rank_sums[window], rows(stage + L::memory.weight_bytes + first, 128, k),
                            rank_matrix(stage + L::memory.weight_bytes + L::memory.rows_bytes, k));
                    }
                }
            }
            ptx::wgmma_commit();
            // The step before is done; its stage can be filled again.
            ptx::wgmma_wait<1>();
            if (step > 0) give_back(last);
            last = ring.stage;
            ring.next();
        }
    }

    /// The tile's products, with an adapter whose rank rows are read.
    template <int N>
    __device__ __forceinline__ void multiply_tile(float (&sums)[2][N / 2]) {
        float none[rank_windows<N>][L::rank_depth / 2];
        int last = 0;
        multiply_steps<N, false>(sums, none, last);
        if constexpr (L::memory.lora_beside) {
            ptx::wgmma_fence();
            multiply_adapter<N>(sums, base + L::memory.staging, base + L::memory.rank_rows);
            ptx::wgmma_commit();
        } else {
#pragma unroll 1
            for (int step = 0; step < L::lora_slots; ++step) {
                wait_filled();
                const unsigned stage = base + ring.stage * L::memory.stage_bytes;
                ptx::wgmma_fence();
                multiply_adapter<N>(sums, stage, stage + L::memory.weight_bytes);
                ptx::wgmma_commit();
                ptx::wgmma_wait<1>();
                give_back(last);
                last = ring.stage;
                ring.next();
            }
        }
        ptx::wgmma_wait<0>();
        give_back(last);
    }

    /// The tile's products and its rank rows, which are the last step of the reduction.
    template <int N>
    __device__ __forceinline__ void multiply_tile_and_rank_rows(const Tile& tile, float (&sums)[2][N / 2]) {
        float rank_sums[rank_windows<N>][L::rank_depth / 2] = {};
        int last = 0;
        multiply_steps<N, true>(sums, rank_sums, last);
        ptx::wgmma_wait<0>();
        give_back(last);
#pragma unroll
        for (int window = 0; window < rank_windows<N>; ++window) ptx::wgmma_hold(rank_sums[window]);
        finish_rank_rows<N>(tile, rank_sums);
        unsigned weights_at = base + L::memory.staging;
        if constexpr (!L::memory.lora_beside) {
            wait_filled();
            weights_at = base + ring.stage * L::memory.stage_bytes;
        }
        ptx::wgmma_fence();
        multiply_adapter<N>(sums, weights_at, base + L::memory.rank_rows);
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>();
        if constexpr (!L::memory.lora_beside) {
            give_back(ring.stage);
            ring.next();
        }
    }

    /// The tile, its height at most N rows: products, then the output through the staging.
    template <int N>
    __device__ __forceinline__ void run(const Tile& tile) {
        float sums[2][N / 2] = {};
        bool staging_read = L::memory.lora_beside;
        if constexpr (L::makes_rank_rows) {
            if (tile.column == 0) {
                multiply_tile_and_rank_rows<N>(tile, sums);
                staging_read = true;
            } else {
                multiply_tile<N>(sums);
            }
        } else {
            multiply_tile<N>(sums);
        }
        // Both warpgroups have read the operands in the staging before the output takes their place.
        if (staging_read) ptx::named_barrier_sync(consumers_barrier, 256);
        ptx::wgmma_hold(sums[0]);
        ptx::wgmma_hold(sums[1]);
        stage_output<N>(tile, sums);
        left_parity ^= 1U;
    }

    template <int N>
    __device__ __forceinline__ void stage_output(const Tile& tile, const float (&sums)[2][N / 2]) {
        const int lane = static_cast<int>(threadIdx.x) & 31;
        const int warp = (static_cast<int>(threadIdx.x) >> 5) & 3;
        const Finish finish{args.product};
        typename Finish::Column columns[2][2][1];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int column = tile.column + half * 128 + i / 2 * 64 + warp * 16 + lane / 4 + i % 2 * 8;
            if (column < C::OUT)
                finish.read_columns(columns[i / 2][i % 2], ProductGroups<C>::weight_of(tile.group), column);
        }
        // Matrix lane / 8 of four: columns + 8 in the odd ones, rows + 8 in the upper two.
        const int matrix_row = lane % 8 + lane / 16 * 8;
#pragma unroll
        for (int block = 0; block < (N + 8) / 16; ++block) {
            const unsigned slot = base + L::memory.staging + static_cast<unsigned>(slots.stage) * L::slot_bytes;
            ptx::mbarrier_wait(L::stored(base, slots.stage), slots.parity ^ 1U);
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                unsigned packed[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    // The last eight rows of a height that is no multiple of 16 are written twice, once past its end.
                    const int n8 = block * 2 + i / 2 < N / 8 ? block * 2 + i / 2 : N / 8 - 1;
                    float value[2];
#pragma unroll
                    for (int j = 0; j < 2; ++j) {
                        const auto of_row = row_of_tile(finish, tile, n8 * 8 + lane % 4 * 2 + j);
                        value[j] = Finish::apply(sums[m][n8 * 4 + i % 2 * 2 + j], of_row, columns[m][i % 2][0]);
                    }
                    packed[i] = pack2<Element>(value[0], value[1]);
                }
                const int chunk = half * 16 + m * 8 + warp * 2 + lane / 8 % 2;
                ptx::stmatrix_x4_trans(slot + swizzled<32>(matrix_row, chunk), packed[0], packed[1], packed[2],
                                       packed[3]);
            }
            ptx::mbarrier_arrive(L::staged(base, slots.stage));
            slots.next();
        }
    }

    /// The epilogue's part of a row of the tile.
    __device__ __forceinline__ auto row_of_tile(const Finish& finish, const Tile& tile, int row) const {
        auto of_row = finish.row();
        if constexpr (C::HAS_GATES != 0) {
            const int position = tile.first_row + row < tile.last_row ? tile.first_row + row : tile.last_row;
            const auto flat = static_cast<const typename C::Index*>(args.product.scattered_idxs)[position];
            finish.read_row(of_row, static_cast<int>(flat));
        }
        return of_row;
    }

    template <int HEIGHT>
    __device__ __forceinline__ void run_height(const Tile& tile) {
        if constexpr (HEIGHT <= C::TILE_ROWS && whole_height(HEIGHT, C::ROW_STEP) == HEIGHT) run<HEIGHT>(tile);
    }

    /// Chooses the instruction for the tile's height.
    __device__ __forceinline__ void dispatch(const Tile& tile) {
        static_assert(C::TILE_ROWS <= 160, "a case for each height");
        switch (tile.height / 8) {
            case 1:
                return run_height<8>(tile);
            case 2:
                return run_height<16>(tile);
            case 3:
                return run_height<24>(tile);
            case 4:
                return run_height<32>(tile);
            case 5:
                return run_height<40>(tile);
            case 6:
                return run_height<48>(tile);
            case 7:
                return run_height<56>(tile);
            case 8:
                return run_height<64>(tile);
            case 9:
                return run_height<72>(tile);
            case 10:
                return run_height<80>(tile);
            case 11:
                return run_height<88>(tile);
            case 12:
                return run_height<96>(tile);
            case 13:
                return run_height<104>(tile);
            case 14:
                return run_height<112>(tile);
            case 15:
                return run_height<120>(tile);
            case 16:
                return run_height<128>(tile);
            case 17:
                return run_height<136>(tile);
            case 18:
                return run_height<144>(tile);
            case 19:
                return run_height<152>(tile);
            default:
                return run_height<160>(tile);
        }
    }
};

template <class C>
__device__ __forceinline__ void consume(const GroupedProductWgmmaArgs& args, unsigned base, int half) {
    Consumer<C> consumer{args, base, half};
    Tiles<C> tiles{base};
    for (Tile tile; tiles.next(tile);) {
        if (tile.group < ProductGroups<C>::routed) consumer.dispatch(tile);
    }
}

}  // namespace smlora::grouped_product_wgmma
