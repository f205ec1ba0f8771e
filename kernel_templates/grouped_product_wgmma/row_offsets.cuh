// Where the rows of a tile lie that a thread copies, in half of the registers of addresses.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "grouped_product_wgmma/tile.cuh"
#include "ptx/cp_async.cuh"
#include "rows.cuh"
#include "types.cuh"

namespace smlora::grouped_product_wgmma {

/// The thread's 16-byte chunk of one row in 16, in units of 16 bytes from the tensor's beginning. Each copy adds up its
/// address.
template <class C>
struct RowOffsets {
    using Element = typename C::Element;
    using Left = Rows<const Element, C::ROWS, C::TOP_K>;
    static constexpr int passes = C::TILE_ROWS / 16;

    unsigned offsets[passes];

    /// By all threads of the warp, which copies four rows a pass. A lane looks up one, four lanes those of a pass, and
    /// tells the others.
    __device__ __forceinline__ void find(const GroupedProductArgs& product, const Tile& tile, int thread, int chunk) {
        constexpr int look_ups = ceil_div(passes, 8);
        const auto* const scattered = static_cast<const typename C::Index*>(product.scattered_idxs);
        const auto stride = static_cast<unsigned>(product.rows_stride / 8);
        const int lane = thread % 32;
        unsigned found[look_ups];
#pragma unroll
        for (int i = 0; i < look_ups; ++i) {
            const int row = tile.first_row + thread / 32 * 4 + lane % 4 + (i * 8 + lane / 4) * 16;
            const int position = row < tile.last_row ? row : tile.last_row;
            found[i] = static_cast<unsigned>(Left::index(position, scattered)) * stride;
        }
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
            const unsigned row = __shfl_sync(0xFFFFFFFFU, found[pass / 8], pass % 8 * 4 + lane / 8);
            offsets[pass] = row + static_cast<unsigned>(chunk);
        }
    }

    /// Copies the thread's chunks of the step that begins at column `red` of the tensor `rows`, 0 bytes unless
    /// `inside`.
    __device__ __forceinline__ void copy(unsigned to, const Element* rows, int red, bool inside,
                                         int tile_passes) const {
        const auto* const step = reinterpret_cast<const Vec16*>(inside ? rows + red : rows);
        for_each_int<passes>([&](auto number) {
            constexpr int pass = decltype(number)::value;
            constexpr int pass_bytes = 16 * step_depth * 2;
            if (pass < tile_passes) {
                if constexpr (C::RED % step_depth == 0) {
                    ptx::cp_async_16(to + pass * pass_bytes, step + offsets[pass]);
                } else {
                    ptx::cp_async_16(to + pass * pass_bytes, step + offsets[pass], inside ? 16U : 0U);
                }
            }
        });
    }
};

}  // namespace smlora::grouped_product_wgmma
