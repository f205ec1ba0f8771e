// The warpgroup that fills the stages: weights through TMA, rows gathered with cp.async.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "grouped_product_wgmma/tile.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/synchronise.cuh"
#include "ptx/tma.cuh"
#include "swizzle.cuh"

namespace smlora::grouped_product_wgmma {

/// Copies the weights of one step: [tile_columns x DEPTH] of `map`, MAJOR 0: reduction contiguous.
template <int MAJOR, int DEPTH>
__device__ __forceinline__ void copy_weights(unsigned target, const TensorMap& map, unsigned barrier, int expert,
                                             int column, int red) {
    if constexpr (MAJOR == 0) {
        ptx::tma_load(target, map, barrier, red, column, expert);
    } else {
#pragma unroll
        for (int piece = 0; piece < tile_columns / 64; ++piece) {
            ptx::tma_load(target + static_cast<unsigned>(piece * DEPTH * 128), map, barrier, column + piece * 64, red,
                          expert);
        }
    }
}

template <class C>
__device__ __forceinline__ void produce(const GroupedProductWgmmaArgs& args, unsigned base, const int* prefix) {
    using L = Layout<C>;
    using Element = typename C::Element;
    const auto* const offsets = static_cast<const typename C::Index*>(args.product.expert_offsets);
    const auto* const scattered = static_cast<const typename C::Index*>(args.product.scattered_idxs);
    const auto* const rows = static_cast<const Element*>(args.product.rows);
    // Eight threads copy a row's 128 bytes, 16 rows a pass.
    constexpr int passes = C::TILE_ROWS / 16;
    const int thread = static_cast<int>(threadIdx.x) & 127;
    const int chunk = thread & 7;
    const bool leader = thread == 0;
    bool waited = false;
    Ring<C::STAGES> ring;

    for_each_tile<C>(prefix, offsets, args.product.M, [&](const Tile& tile) {
        if (tile.expert == C::E) return;
        const Element* from[passes];
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
            // Rows past the tile's end repeat its last one.
            const int row = thread / 8 + pass * 16;
            const int position = tile.first_row + (row < tile.rows ? row : tile.rows - 1);
            int source = position;
            if constexpr (C::ROWS != rows_grouped) {
                source = row_of<C::ROWS, C::TOP_K>(position, static_cast<int>(scattered[position]));
            }
            from[pass] = rows + source * args.product.rows_stride + chunk * 8;
        }
        const int tile_passes = ceil_div(tile.height, 16);

        auto copy_adapter = [&](unsigned weights, unsigned rank_rows, unsigned barrier, int step) {
            if constexpr (L::has_lora) {
                if (!L::makes_rank_rows && !waited) {
                    ptx::wait_for_earlier_kernels();
                    waited = true;
                }
                const int rank = step * L::rank_depth;
                copy_weights<C::LORA_MAJOR, L::rank_depth>(weights, args.lora_weight_map, barrier, tile.expert,
                                                           tile.column, rank);
                if constexpr (!L::makes_rank_rows) {
                    ptx::tma_load(rank_rows, args.lora_rows_map, barrier, rank, tile.first_row, 0);
                }
            }
        };

        for (int step = 0; step < L::red_steps; ++step) {
            const unsigned stage = base + ring.stage * L::stage_bytes;
            const unsigned barrier = L::filled(base, ring.stage);
            const int red = step * step_depth;
            ptx::mbarrier_wait(L::emptied(base, ring.stage), ring.parity ^ 1U);
            if (leader) {
                const bool adapter_too = L::lora_beside && step == L::red_steps - 1;
                ptx::mbarrier_arrive_expect(
                    barrier,
                    L::weight_bytes + L::rank_bytes + (adapter_too ? L::lora_weight_bytes + L::lora_rows_bytes : 0U));
                copy_weights<C::WEIGHT_MAJOR, step_depth>(stage, args.weight_map, barrier, tile.expert, tile.column,
                                                          red);
                if constexpr (L::makes_rank_rows) {
                    const unsigned target = stage + L::weight_bytes + L::rows_bytes;
                    if constexpr (C::RANK_MAJOR == 0) {
                        ptx::tma_load(target, args.rank_map, barrier, red, 0, tile.expert);
                    } else {
                        ptx::tma_load(target, args.rank_map, barrier, 0, red, tile.expert);
                    }
                }
                if (adapter_too) {
                    copy_adapter(base + L::adapter, base + L::adapter + L::lora_weight_bytes, barrier, 0);
                }
            }
            const unsigned target = stage + L::weight_bytes;
            const bool inside = C::RED % step_depth == 0 || red + chunk * 8 < C::RED;
#pragma unroll
            for (int pass = 0; pass < passes; ++pass) {
                if (pass < tile_passes) {
                    const unsigned to = target + swizzled<8>(thread / 8 + pass * 16, chunk);
                    if constexpr (C::RED % step_depth == 0) {
                        ptx::cp_async_16(to, from[pass]);
                    } else {
                        ptx::cp_async_16(to, inside ? from[pass] : rows, inside ? 16U : 0U);
                    }
                    from[pass] += step_depth;
                }
            }
            ptx::cp_async_arrive(barrier);
            ring.next();
        }
        for (int step = 0; step < L::lora_slots; ++step) {
            const unsigned stage = base + ring.stage * L::stage_bytes;
            const unsigned barrier = L::filled(base, ring.stage);
            ptx::mbarrier_wait(L::emptied(base, ring.stage), ring.parity ^ 1U);
            if (leader) {
                ptx::mbarrier_arrive_expect(barrier, L::lora_weight_bytes + L::lora_rows_bytes);
                copy_adapter(stage, stage + L::weight_bytes, barrier, step);
            }
            ptx::cp_async_arrive(barrier);
            ring.next();
        }
    });
    // What follows on the stream counts on earlier kernels being done when this one is.
    if (leader && !waited) ptx::wait_for_earlier_kernels();
}

}  // namespace smlora::grouped_product_wgmma
