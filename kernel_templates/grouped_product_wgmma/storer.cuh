// The warpgroup that writes staged output tiles to their rows, while the next tile is multiplied.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "grouped_product_wgmma/tile.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/synchronise.cuh"
#include "swizzle.cuh"

namespace smlora::grouped_product_wgmma {

constexpr int storer_barrier = 2;

template <class C>
__device__ __forceinline__ void store(const GroupedProductWgmmaArgs& args, unsigned char* shared, const int* prefix) {
    using L = Layout<C>;
    using Element = typename C::Element;
    const auto* const offsets = static_cast<const typename C::Index*>(args.product.expert_offsets);
    const auto* const scattered = static_cast<const typename C::Index*>(args.product.scattered_idxs);
    auto* const out = static_cast<Element*>(args.product.out);
    auto* const out_rows = reinterpret_cast<int*>(shared + L::out_rows);
    const unsigned base = ptx::shared_address(shared);
    // Sixteen threads store a row's 256 bytes of a half, eight rows at once.
    const int thread = static_cast<int>(threadIdx.x) & 127;
    const int chunk = thread % 16;
    unsigned parity = 0;

    for_each_tile<C>(prefix, offsets, args.product.M, [&](const Tile& tile) {
        ptx::named_barrier_sync(storer_barrier, 128);  // the last tile's rows are stored
        for (int row = thread; row < tile.rows; row += 128) {
            const int position = tile.first_row + row;
            out_rows[row] = row_of<C::OUT_ROWS, C::TOP_K>(position, static_cast<int>(scattered[position]));
        }
        ptx::named_barrier_sync(storer_barrier, 128);
        const bool left_out = tile.expert == C::E;
        if constexpr (L::makes_rank_rows) {
            if (left_out && tile.column == 0) {
                auto* const rank_rows = static_cast<Element*>(args.rank_rows);
                for (int i = thread; i < tile.rows * (C::RANK / 8); i += 128) {
                    *reinterpret_cast<Vec16*>(rank_rows + static_cast<int64>(tile.first_row) * C::RANK + i * 8) = {};
                }
            }
        }
        const int pieces = left_out ? 1 : fillings<C>(tile.height);
        for (int piece = 0; piece < pieces; ++piece) {
            const int begin = piece * C::STAGING_ROWS;
            const int end = left_out || begin + C::STAGING_ROWS > tile.rows ? tile.rows : begin + C::STAGING_ROWS;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int column = tile.column + half * 128 + chunk * 8;
                const unsigned char* const staged = shared + L::staging + half * static_cast<int>(L::half_bytes);
                if (!left_out) ptx::mbarrier_wait(L::staged(base, half), parity);
                if (column < C::OUT) {
#pragma unroll 4
                    for (int row = begin + thread / 16; row < end; row += 8) {
                        Vec16 value = {};
                        if (!left_out) {
                            value = *reinterpret_cast<const Vec16*>(staged + swizzled<16>(row - begin, chunk));
                        }
                        *reinterpret_cast<Vec16*>(out + out_rows[row] * args.product.out_stride + column) = value;
                    }
                }
                if (!left_out) {
                    __syncwarp();
                    if (thread % 32 == 0) ptx::mbarrier_arrive(L::stored(base, half));
                }
            }
            if (!left_out) parity ^= 1U;
        }
        if (!left_out && thread % 32 == 0) ptx::mbarrier_arrive(L::left(base));
    });
}

}  // namespace smlora::grouped_product_wgmma
