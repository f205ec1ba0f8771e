// The warpgroup that fills the stages: weights through TMA, rows gathered with cp.async.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "grouped_product_wgmma/row_offsets.cuh"
#include "grouped_product_wgmma/tile.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/l2_policy.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/synchronise.cuh"
#include "ptx/tma.cuh"
#include "rows.cuh"
#include "swizzle.cuh"

namespace smlora::grouped_product_wgmma {

/// Whether a thread keeps the addresses of its rows, for which it needs registers, rather than RowOffsets. It does
/// wherever rank rows are made: with RowOffsets and a RED that is no whole number of steps ptxas 13.0 takes the
/// adapter's coordinate for TMA under a predicate that is not set yet.
template <class C>
constexpr bool keeps_addresses = !Layout<C>::many_rows && (C::RED % step_depth == 0 || Layout<C>::makes_rank_rows);

/// Steps whose copies take their sources at distances that the instruction holds: addresses are added up once for all
/// of them, and a copy waits for no addition.
constexpr int steps_ahead = 4;

template <class C>
__device__ __forceinline__ void produce(const GroupedProductWgmmaArgs& args, unsigned base) {
    using L = Layout<C>;
    using Element = typename C::Element;
    const auto* const scattered = static_cast<const typename C::Index*>(args.product.scattered_idxs);
    using Left = Rows<const Element, C::ROWS, C::TOP_K>;
    static_assert(Left::as_stored, "an asynchronous copy does not change what it copies");
    const auto* const first = static_cast<const Element*>(args.product.rows);
    // Eight threads copy a row's 128 bytes, 16 rows a pass.
    constexpr int passes = C::TILE_ROWS / 16;
    const int thread = static_cast<int>(threadIdx.x) & 127;
    const int chunk = thread & 7;
    // One thread of each warp issues copies, so that none waits for another's; the adapter's are the last warp's.
    const int issuer = thread % 32 == 0 ? thread / 32 : 4;
    constexpr int adapter_issuer = 3;
    const unsigned long long once = ptx::l2_policy(C::WEIGHTS_ONCE != 0);
    bool waited = false;
    unsigned left_parity = 1;  // of the last tile's output; there was none yet
    Ring<C::STAGES> ring;

    const auto copy_tile = [&](const Tile& tile) {
        // Its rank rows are made here.
        const bool makes = L::makes_rank_rows && tile.column == 0;
        const Element* from[passes];
        RowOffsets<C> offsets;
        if constexpr (keeps_addresses<C>) {
#pragma unroll
            for (int pass = 0; pass < passes; ++pass) {
                const int row = tile.first_row + thread / 8 + pass * 16;
                const int position = row < tile.last_row ? row : tile.last_row;
                const Left rows{first, args.product.rows_stride};
                from[pass] = rows.address(Left::index(position, scattered)) + chunk * 8;
            }
        } else {
            offsets.find(args.product, tile, thread, chunk);
        }
        const int tile_passes = ceil_div(tile.height, 16);

        const unsigned lora_bytes = L::memory.lora_weight_bytes + (makes ? 0U : L::memory.lora_rows_bytes);
        auto copy_adapter = [&](unsigned weights, unsigned rank_rows, unsigned barrier, int step) {
            if constexpr (L::has_lora) {
                if (!L::makes_rank_rows && !waited) {
                    ptx::wait_for_earlier_kernels();
                    waited = true;
                }
                const int rank = step * L::rank_depth;
#pragma unroll
                for (int number = 0; number < L::AdapterWeight::template copies<C::CLUSTER>; ++number) {
                    L::AdapterWeight::template copy<C::CLUSTER>(number, weights, args.lora_weight_map, barrier,
                                                                ProductGroups<C>::adapter_of(tile.group), tile.column,
                                                                rank);
                }
                if (!makes) {
                    if constexpr (L::makes_rank_rows) ptx::wait_for_flag(args.progress + 1 + tile.row_tile);
                    ptx::tma_load(rank_rows, args.lora_rows_map, barrier, rank, tile.first_row, 0);
                }
            }
        };

        // Where this thread's piece of a row lies in a stage; those of its other rows lie 16 rows further each.
        const unsigned own = L::memory.weight_bytes + swizzled<8>(thread / 8, chunk);
        const auto copy_step = [&](auto ahead, int step) {
            constexpr int offset = decltype(ahead)::value * step_depth;
            const unsigned stage = base + ring.stage * L::memory.stage_bytes;
            const unsigned barrier = L::filled(base, ring.stage);
            const int red = step * step_depth;
            ptx::mbarrier_wait(L::emptied(base, ring.stage), ring.parity ^ 1U);
            // The adapter arrives with the last step.
            const bool adapter_too = L::memory.lora_beside && step == L::red_steps - 1;
            if (issuer == 0) {
                ptx::mbarrier_arrive_expect(barrier, L::memory.weight_bytes + (makes ? L::memory.rank_bytes : 0U) +
                                                         (adapter_too ? lora_bytes : 0U));
            }
            if (issuer < L::BaseWeight::template copies<C::CLUSTER>) {
                const auto copy_weights = [&](auto... policy) {
                    L::BaseWeight::template copy<C::CLUSTER>(issuer, stage, args.weight_map, barrier,
                                                             ProductGroups<C>::weight_of(tile.group), tile.column, red,
                                                             policy...);
                };
                if constexpr (C::WEIGHTS_ONCE != 0) {
                    copy_weights(once);
                } else {
                    copy_weights();
                }
            }
            if (issuer == adapter_issuer) {
                if (makes) {
                    const unsigned target = stage + L::memory.weight_bytes + L::memory.rows_bytes;
                    const int adapter = ProductGroups<C>::adapter_of(tile.group);
                    if constexpr (C::RANK_MAJOR == 0) {
                        ptx::tma_load(target, args.rank_map, barrier, red, 0, adapter);
                    } else {
                        ptx::tma_load(target, args.rank_map, barrier, 0, red, adapter);
                    }
                }
                if (adapter_too) {
                    // The last tile's output has left the staging.
                    ptx::mbarrier_wait(L::left(base), left_parity);
                    left_parity ^= 1U;
                    copy_adapter(base + L::memory.staging, base + L::memory.rank_rows, barrier, 0);
                }
            }
            const unsigned to = stage + own;
            const bool inside = C::RED % step_depth == 0 || red + chunk * 8 < C::RED;
            if constexpr (keeps_addresses<C>) {
                for_each_int<passes>([&](auto number) {
                    constexpr int pass = decltype(number)::value;
                    constexpr int row_bytes = step_depth * 2;
                    if (pass < tile_passes) {
                        if constexpr (C::RED % step_depth == 0) {
                            ptx::cp_async_16_at<pass * 16 * row_bytes, offset * 2>(to, from[pass]);
                        } else {
                            ptx::cp_async_16(to + pass * 16 * row_bytes, inside ? from[pass] + offset : first,
                                             inside ? 16U : 0U);
                        }
                    }
                });
            } else {
                offsets.copy(to, first, red, inside, tile_passes);
            }
            ptx::cp_async_arrive(barrier);
            ring.next();
        };
        if constexpr (keeps_addresses<C>) {
            for (int step = 0; step < L::red_steps; step += steps_ahead) {
                for_each_int<steps_ahead>([&](auto ahead) {
                    if (L::red_steps % steps_ahead == 0 || step + decltype(ahead)::value < L::red_steps) {
                        copy_step(ahead, step + decltype(ahead)::value);
                    }
                });
#pragma unroll
                for (int pass = 0; pass < passes; ++pass) from[pass] += steps_ahead * step_depth;
            }
        } else {
#pragma unroll 1
            for (int step = 0; step < L::red_steps; ++step) {
                for_each_int<1>([&](auto none_ahead) { copy_step(none_ahead, step); });
            }
        }
        for (int step = 0; step < L::lora_slots; ++step) {
            const unsigned stage = base + ring.stage * L::memory.stage_bytes;
            const unsigned barrier = L::filled(base, ring.stage);
            ptx::mbarrier_wait(L::emptied(base, ring.stage), ring.parity ^ 1U);
            if (issuer == adapter_issuer) {
                ptx::mbarrier_arrive_expect(barrier, lora_bytes);
                copy_adapter(stage, stage + L::memory.weight_bytes, barrier, step);
            }
            ptx::cp_async_arrive(barrier);
            ring.next();
        }
    };

    Tiles<C> tiles{base};
    for (Tile tile; tiles.next(tile);) {
        if (tile.group < ProductGroups<C>::routed) copy_tile(tile);
    }
    // What follows on the stream counts on earlier kernels being done when this one is.
    if (issuer == adapter_issuer && !waited) ptx::wait_for_earlier_kernels();
}

}  // namespace smlora::grouped_product_wgmma
