// The warpgroup that writes staged output tiles to their rows, while the next tile is multiplied.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "grouped_product_wgmma/tile.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/synchronise.cuh"
#include "swizzle.cuh"

namespace smlora::grouped_product_wgmma {

constexpr int storer_barrier = 2;

/// Writes zeros to the rows of a tile of entries left out, and to their rank rows.
template <class C>
__device__ __forceinline__ void clear(const GroupedProductWgmmaArgs& args, const Tile& tile, const unsigned* out_rows) {
    const int thread = static_cast<int>(threadIdx.x) & 127;
    auto* const out = static_cast<Vec16*>(args.product.out);
    const int chunks = C::OUT - tile.column < tile_columns ? (C::OUT - tile.column) / 8 : tile_columns / 8;
    for (int i = thread; i < tile.rows * chunks; i += 128) {
        out[out_rows[i / chunks] + static_cast<unsigned>(i % chunks)] = Vec16{};
    }
    if (Layout<C>::makes_rank_rows && tile.column == 0) {
        auto* const rank_rows = static_cast<typename C::Element*>(args.rank_rows);
        for (int i = thread; i < tile.rows * (C::RANK / 8); i += 128) {
            *reinterpret_cast<Vec16*>(rank_rows + static_cast<int64>(tile.first_row) * C::RANK + i * 8) = Vec16{};
        }
    }
}

template <class C>
__device__ __forceinline__ void store(const GroupedProductWgmmaArgs& args, unsigned char* shared,
                                      const TileList& list) {
    using L = Layout<C>;
    const auto* const offsets = static_cast<const typename C::Index*>(args.product.expert_offsets);
    const auto* const scattered = static_cast<const typename C::Index*>(args.product.scattered_idxs);
    auto* const out = static_cast<Vec16*>(args.product.out);
    auto* const out_rows = reinterpret_cast<unsigned*>(shared + L::out_rows);
    const unsigned base = list.base;
    // Sixteen threads store a row's 256 bytes of a half, eight rows at once.
    const int thread = static_cast<int>(threadIdx.x) & 127;
    const int chunk = thread % 16;
    unsigned parity = 0;

    for_each_tile<C>(list, offsets, args.product.M, [&](const Tile& tile) {
        ptx::named_barrier_sync(storer_barrier, 128);  // the last tile's rows are stored
        for (int row = thread; row < tile.rows; row += 128) {
            const int position = tile.first_row + row;
            const int to = row_of<C::OUT_ROWS, C::TOP_K>(position, static_cast<int>(scattered[position]));
            out_rows[row] = static_cast<unsigned>((to * args.product.out_stride + tile.column) / 8);
        }
        ptx::named_barrier_sync(storer_barrier, 128);
        if (tile.expert == C::E) return clear<C>(args, tile, out_rows);
        const int pieces = fillings<C>(tile.height);
        for (int piece = 0; piece < pieces; ++piece) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                ptx::mbarrier_wait(L::staged(base, half), parity);
                if (tile.column + half * 128 + chunk * 8 < C::OUT) {
                    const int first = thread / 16;
                    const unsigned char* const staged =
                        shared + L::staging + half * static_cast<int>(L::half_bytes) + swizzled<16>(first, chunk);
                    const int left = tile.rows - piece * C::STAGING_ROWS - first;
                    const unsigned* const rows = out_rows + piece * C::STAGING_ROWS + first;
                    constexpr int rounds = C::STAGING_ROWS / 8;
                    constexpr int batch = rounds % 3 == 0 ? 3 : rounds % 4 == 0 ? 4 : 2;
#pragma unroll
                    for (int begin = 0; begin < rounds; begin += batch) {
                        Vec16 value[batch];
                        unsigned to[batch];
#pragma unroll
                        for (int i = 0; i < batch; ++i) {
                            // Eight rows further the swizzle is the same.
                            value[i] = *reinterpret_cast<const Vec16*>(staged + (begin + i) * 8 * 256);
                            to[i] = (begin + i) * 8 < left ? rows[(begin + i) * 8] : 0;
                        }
#pragma unroll
                        for (int i = 0; i < batch; ++i) {
                            if ((begin + i) * 8 < left)
                                out[to[i] + static_cast<unsigned>(half * 16 + chunk)] = value[i];
                        }
                    }
                }
                __syncwarp();
                if (thread % 32 == 0) ptx::mbarrier_arrive(L::stored(base, half));
            }
            parity ^= 1U;
        }
        if (thread % 32 == 0) ptx::mbarrier_arrive(L::left(base));
    });
}

}  // namespace smlora::grouped_product_wgmma
