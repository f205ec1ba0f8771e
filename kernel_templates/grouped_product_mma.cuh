// Grouped product on tensor cores, sm_80 and up: the base product, the forward pass, dX and the rank-sized products XA
// and YB are this one kernel with different constants.
//
// A persistent grid walks the tiles (group, column tile, row tile), row tiles fastest, so that the row tiles that
// share a weight tile run together and the weights come from memory once. Each block runs a STAGES-deep cp.async
// pipeline over the reduction; rows are gathered while they are copied and scattered when they are stored. LoRA
// lengthens the reduction: after the RED steps come ceil(RANK / TILE_K) more that multiply lora_rows by the adapter.
//
// Weights may be codes (weight/mma_packed.cuh): the block then decodes a step ahead of its products, to one of two
// places behind the stages, where the adapter's weights go as well.
//
// Roles: all warps copy, then all multiply; warp (wm, wn) owns a (TILE_M / WARPS_M) x (TILE_N / WARPS_N) part.
//
// Shared memory: args/grouped_product_mma.h.
//
// Compile-time (struct C): E, RED, OUT, RANK (stride of lora_rows, a multiple of 8; 0: none), TOP_K, ROWS, OUT_ROWS,
// WEIGHT_MAJOR and LORA_MAJOR (0: reduction contiguous, 1: output contiguous), WEIGHT_ROW_STRIDE (0: args tell),
// HAS_BIAS, HAS_GATES, SLICE, TILE_M, TILE_N, TILE_K, WARPS_M, WARPS_N, STAGES; types Element, Weight
// (weight/plain.cuh), Gate, Index. RED and OUT are multiples of 8, every row 16-byte aligned.
#pragma once

#include "args/grouped_product.h"
#include "args/grouped_product_mma.h"
#include "epilogue.cuh"
#include "product_groups.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"
#include "ptx/synchronise.cuh"
#include "rows.cuh"
#include "swizzle.cuh"
#include "tile_list.cuh"
#include "types.cuh"
#include "weight/mma.cuh"

namespace smlora::grouped_product_mma {

using Args = GroupedProductArgs;

template <class C>
struct Layout {
    static constexpr Blocking blocking{C::TILE_M, C::TILE_N, C::TILE_K, C::WARPS_M, C::WARPS_N, C::STAGES};
    static constexpr bool decodes = weight::is_decoded<typename C::Weight>;
    static constexpr int value_bytes = weight::Plain::stage_bytes(C::TILE_N, C::TILE_K);
    static constexpr SharedMemory memory =
        shared_memory(blocking, C::E, C::Weight::stage_bytes(C::TILE_N, C::TILE_K), decodes ? value_bytes : 0);
    static_assert(C::RANK == 0 || decodes || memory.stage_bytes - memory.stage_weights >= value_bytes,
                  "the adapter takes the place of a stage's weights");
    static constexpr int threads = grouped_product_mma::threads(blocking);
    static constexpr int warp_m = C::TILE_M / C::WARPS_M;
    static constexpr int warp_n = C::TILE_N / C::WARPS_N;
    static constexpr int m_tiles = warp_m / 16;
    static constexpr int n_tiles = warp_n / 8;
    static constexpr int k_chunks = C::TILE_K / 8;  // 16-byte chunks of a reduction-contiguous row
    static constexpr int n_chunks = C::TILE_N / 8;  // of an output-contiguous row
    static constexpr int red_steps = ceil_div(C::RED, C::TILE_K);
    static constexpr int lora_steps = ceil_div(C::RANK, C::TILE_K);
    static constexpr int steps = red_steps + lora_steps;
    static constexpr int column_tiles = ceil_div(C::OUT, C::TILE_N);
    static constexpr int row_passes = C::TILE_M * k_chunks / threads;

    static_assert(warp_m % 16 == 0 && warp_n % 16 == 0, "a warp's part is made of 16 x 16 pieces");
    static_assert(C::TILE_M * k_chunks % threads == 0, "every thread copies the same number of row chunks");
    static_assert(threads % k_chunks == 0, "a thread keeps its chunk column over the passes");
    static_assert(C::STAGES >= (decodes ? 3 : 2), "copies of later steps run under the products of this one");
};

/// Where a tile lies.
struct Tile {
    int group;
    int first_row;  // sorted position
    int rows;       // 1 .. TILE_M
    int column;
};

/// The weights, and the adapter's, which come after them in the reduction.
template <class C>
using BaseWeight = weight::Mma<typename C::Weight, C, Layout<C>, C::WEIGHT_MAJOR, C::RED, C::WEIGHT_ROW_STRIDE>;
template <class C>
using AdapterWeight = weight::Mma<weight::Plain, C, Layout<C>, C::LORA_MAJOR, C::RANK, 0>;

/// The fragments of one k16 step: A for m_tiles x m16, B for n_tiles x n8.
template <class C>
struct Fragments {
    unsigned a[Layout<C>::m_tiles][4];
    unsigned b[Layout<C>::n_tiles / 2][4];
};

template <class C, class Weight>
__device__ __forceinline__ void load_fragments(Fragments<C>& fragments, unsigned stage, unsigned weights, int k16,
                                               int warp_m, int warp_n) {
    using L = Layout<C>;
    const int lane = static_cast<int>(threadIdx.x) & 31;
#pragma unroll
    for (int m = 0; m < L::m_tiles; ++m) {
        const int row = warp_m * L::warp_m + m * 16 + (lane & 15);
        ptx::ldmatrix_x4(fragments.a[m], stage + swizzled<L::k_chunks>(row, k16 * 2 + (lane >> 4)));
    }
    Weight::load(fragments.b, weights, k16, warp_n * L::warp_n);
}

template <class C>
__device__ __forceinline__ void multiply(float (&sums)[Layout<C>::m_tiles][Layout<C>::n_tiles][4],
                                         const Fragments<C>& fragments) {
    using L = Layout<C>;
#pragma unroll
    for (int m = 0; m < L::m_tiles; ++m) {
#pragma unroll
        for (int n = 0; n < L::n_tiles; ++n) {
            ptx::mma_m16n8k16<typename C::Element>(sums[m][n], fragments.a[m], fragments.b[n / 2][(n & 1) * 2],
                                                   fragments.b[n / 2][(n & 1) * 2 + 1]);
        }
    }
}

struct Nothing {
    __device__ __forceinline__ void operator()(int) const {}
};

/// All k16 steps of one stage, whose weights are at `weights`; fragments of the next, and what `meanwhile` does in
/// each, are loaded under the products of this one.
template <class C, class Weight, int K16_STEPS, class Meanwhile = Nothing>
__device__ __forceinline__ void multiply_stage(float (&sums)[Layout<C>::m_tiles][Layout<C>::n_tiles][4], unsigned stage,
                                               unsigned weights, int warp_m, int warp_n,
                                               const Meanwhile& meanwhile = {}) {
    Fragments<C> fragments[2];
    load_fragments<C, Weight>(fragments[0], stage, weights, 0, warp_m, warp_n);
#pragma unroll
    for (int k16 = 0; k16 < K16_STEPS; ++k16) {
        if (k16 + 1 < K16_STEPS) {
            load_fragments<C, Weight>(fragments[(k16 + 1) & 1], stage, weights, k16 + 1, warp_m, warp_n);
        }
        multiply<C>(sums, fragments[k16 & 1]);
        meanwhile(k16);
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args, const typename BaseWeight<C>::Parts& parts = {}) {
    using L = Layout<C>;
    using Element = typename C::Element;
    using Index = typename C::Index;
    using Left = Rows<const Element, C::ROWS, C::TOP_K>;
    using Out = Rows<Element, C::OUT_ROWS, C::TOP_K>;
    static_assert(Left::as_stored, "an asynchronous copy does not change what it copies");
    extern __shared__ __align__(128) unsigned char shared[];
    int* const row_flat = reinterpret_cast<int*>(shared + L::memory.row_flat);
    int* const prefix = reinterpret_cast<int*>(shared + L::memory.prefix);
    int* const warp_totals = reinterpret_cast<int*>(shared + L::memory.warp_totals);
    const unsigned pipeline = ptx::shared_address(shared);

    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread & 31;
    const int warp_m = (thread >> 5) % C::WARPS_M;
    const int warp_n = (thread >> 5) / C::WARPS_M;
    const ProductGroups<C> groups{static_cast<const Index*>(args.expert_offsets), args.M};
    const auto* const scattered = static_cast<const Index*>(args.scattered_idxs);

    ptx::let_next_kernel_begin();
    prefix_counts<groups.count, L::threads>(prefix, warp_totals,
                                            [&](int group) { return ceil_div(groups.rows(group), C::TILE_M); });
    const int tiles = prefix[groups.count] * L::column_tiles;

    for (int item = static_cast<int>(blockIdx.x); item < tiles; item += static_cast<int>(gridDim.x)) {
        // Row tiles run fastest within (group, column tile).
        Tile tile;
        tile.group = group_of<groups.count>(prefix, item / L::column_tiles);
        const int row_tiles = prefix[tile.group + 1] - prefix[tile.group];
        const int local = item - prefix[tile.group] * L::column_tiles;
        tile.column = local / row_tiles * C::TILE_N;
        tile.first_row = groups.first_row(tile.group) + local % row_tiles * C::TILE_M;
        const int rows_left = groups.end_row(tile.group) - tile.first_row;
        tile.rows = rows_left < C::TILE_M ? rows_left : C::TILE_M;

        // The previous tile's output staging and row_flat are read until here.
        __syncthreads();
        for (int row = thread; row < C::TILE_M; row += L::threads) {
            const int position = tile.first_row + (row < tile.rows ? row : 0);
            row_flat[row] = static_cast<int>(scattered[position]);
        }
        __syncthreads();

        float sums[L::m_tiles][L::n_tiles][4] = {};
        if (tile.group < groups.routed) {
            const auto* const rows = static_cast<const Vec16*>(args.rows);
            const Left left{static_cast<const Element*>(args.rows), args.rows_stride};
            const auto* const weight =
                static_cast<const Element*>(args.weight) + groups.weight_of(tile.group) * args.weight_expert_stride;
            const int chunk = thread % L::k_chunks;

            // Where this thread's chunk of each row begins, in 16-byte units: 32 bits reach 64 GiB.
            uint32 row_offset[L::row_passes];
#pragma unroll
            for (int pass = 0; pass < L::row_passes; ++pass) {
                const int row = thread / L::k_chunks + pass * (L::threads / L::k_chunks);
                const int from = Left::index(tile.first_row + (row < tile.rows ? row : 0), row_flat[row]);
                row_offset[pass] = static_cast<uint32>(left.offset(from) / 8) + static_cast<uint32>(chunk);
            }
            auto stage_of = [&](int step) {
                return pipeline + static_cast<unsigned>(step % C::STAGES * L::memory.stage_bytes);
            };
            auto copy_red = [&](int step) {
                const unsigned stage = stage_of(step);
                const int red = step * C::TILE_K;
                const bool inside = C::RED % C::TILE_K == 0 || red + chunk * 8 < C::RED;
#pragma unroll
                for (int pass = 0; pass < L::row_passes; ++pass) {
                    const int row = thread / L::k_chunks + pass * (L::threads / L::k_chunks);
                    const auto* const from = rows + row_offset[pass];
                    const unsigned to = stage + swizzled<L::k_chunks>(row, chunk);
                    if constexpr (C::RED % C::TILE_K == 0) {
                        ptx::cp_async_16(to, from + step * L::k_chunks);
                    } else {
                        ptx::cp_async_16(to, inside ? from + step * L::k_chunks : from, inside ? 16U : 0U);
                    }
                }
                if constexpr (L::decodes) {
                    BaseWeight<C>::copy(stage + L::memory.stage_weights, parts, groups.weight_of(tile.group),
                                        tile.column, red);
                } else {
                    BaseWeight<C>::copy(stage + L::memory.stage_weights, weight, args.weight_row_stride, tile.column,
                                        red);
                }
            };
            auto copy_adapter = [&](unsigned target, int step) {
                const auto* const lora_weight = static_cast<const Element*>(args.lora_weight) +
                                                groups.adapter_of(tile.group) * args.lora_expert_stride;
                AdapterWeight<C>::copy(target, lora_weight, args.lora_row_stride, tile.column,
                                       (step - L::red_steps) * C::TILE_K);
            };
            auto copy_lora = [&](int step) {
                const unsigned stage = stage_of(step);
                const int red = (step - L::red_steps) * C::TILE_K;
                const bool inside = red + chunk * 8 < C::RANK;
                const auto* const lora_rows = static_cast<const Element*>(args.lora_rows);
#pragma unroll
                for (int pass = 0; pass < L::row_passes; ++pass) {
                    const int row = thread / L::k_chunks + pass * (L::threads / L::k_chunks);
                    const int64 position = tile.first_row + (row < tile.rows ? row : 0);
                    const Element* const from = lora_rows + position * C::RANK + (inside ? red + chunk * 8 : 0);
                    ptx::cp_async_16(stage + swizzled<L::k_chunks>(row, chunk), from, inside ? 16U : 0U);
                }
                if constexpr (!L::decodes) copy_adapter(stage + L::memory.stage_weights, step);
            };
            auto copy_step = [&](int step) {
                if (step < L::red_steps) {
                    copy_red(step);
                } else if constexpr (C::RANK > 0) {
                    if (step < L::steps) copy_lora(step);
                }
            };

#pragma unroll
            for (int step = 0; step < C::STAGES - 1; ++step) {
                copy_step(step);
                ptx::cp_async_commit();
            }
            // The weights of a step.
            auto weights_of = [&](int step) {
                if constexpr (L::decodes) {
                    return pipeline + static_cast<unsigned>(L::memory.values + step % 2 * L::value_bytes);
                } else {
                    return stage_of(step) + static_cast<unsigned>(L::memory.stage_weights);
                }
            };
            int step = 0;
            if constexpr (L::decodes) {
                const typename BaseWeight<C>::Decoder decoder{parts};
                auto decode = [&](int of, int part) {
                    decoder.decode(weights_of(of), stage_of(of) + L::memory.stage_weights, part);
                };
                ptx::cp_async_wait<C::STAGES - 2>();
                __syncthreads();
#pragma unroll
                for (int part = 0; part < C::TILE_K / 16; ++part) decode(0, part);
                for (; step < L::red_steps - 1; ++step) {
                    ptx::cp_async_wait<C::STAGES - 3>();
                    // This step has been decoded, the next one has arrived, and every warp has read what is written
                    // next.
                    __syncthreads();
                    copy_step(step + C::STAGES - 1);
                    ptx::cp_async_commit();
                    multiply_stage<C, BaseWeight<C>, C::TILE_K / 16>(sums, stage_of(step), weights_of(step), warp_m,
                                                                     warp_n, [&](int part) { decode(step + 1, part); });
                }
            }
            for (; step < L::red_steps; ++step) {
                ptx::cp_async_wait<C::STAGES - 2>();
                // This step has arrived, and every warp has read the stage that is copied over next.
                __syncthreads();
                copy_step(step + C::STAGES - 1);
                if constexpr (L::decodes && C::RANK > 0) copy_adapter(weights_of(step + 1), step + 1);
                ptx::cp_async_commit();
                multiply_stage<C, BaseWeight<C>, C::TILE_K / 16>(sums, stage_of(step), weights_of(step), warp_m,
                                                                 warp_n);
            }
            if constexpr (C::RANK > 0) {
                // A rank that fits one step takes as many pieces as it has; a longer one whole steps, zero-filled.
                constexpr int k16_steps = C::RANK < C::TILE_K ? ceil_div(C::RANK, 16) : C::TILE_K / 16;
#pragma unroll 1
                for (; step < L::steps; ++step) {
                    ptx::cp_async_wait<L::decodes ? 0 : C::STAGES - 2>();
                    __syncthreads();
                    copy_step(step + C::STAGES - 1);
                    if constexpr (L::decodes) {
                        if (step + 1 < L::steps) copy_adapter(weights_of(step + 1), step + 1);
                    }
                    ptx::cp_async_commit();
                    multiply_stage<C, AdapterWeight<C>, k16_steps>(sums, stage_of(step), weights_of(step), warp_m,
                                                                   warp_n);
                }
            }
            ptx::cp_async_wait<0>();
            // Every warp is done with the pipeline's bytes before they stage the output.
            __syncthreads();
        }

        // Each warp turns its part into rows of Element through its own share of shared memory, then stores whole
        // 16-byte chunks of rows.
        using Finish = Epilogue<C, true>;
        const Finish finish{args};
        constexpr int chunks = L::warp_n / 8;
        unsigned char* const staging = shared + (thread >> 5) * (L::warp_m * L::warp_n * 2);
        const int quad_row = lane >> 2;
        const int quad_column = (lane & 3) * 2;
#pragma unroll
        for (int n = 0; n < L::n_tiles; ++n) {
            typename Finish::Column columns[2];
            const int column = tile.column + warp_n * L::warp_n + n * 8 + quad_column;
            if (tile.group < groups.routed && column < C::OUT)
                finish.read_columns(columns, groups.weight_of(tile.group), column);
#pragma unroll
            for (int m = 0; m < L::m_tiles; ++m) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int row = m * 16 + half * 8 + quad_row;
                    auto of_row = finish.row(groups.scale_of(tile.group, args.scale));
                    if (tile.group < groups.routed) finish.read_row(of_row, row_flat[warp_m * L::warp_m + row]);
                    const uint32 pair = pack2<Element>(Finish::apply(sums[m][n][half * 2], of_row, columns[0]),
                                                       Finish::apply(sums[m][n][half * 2 + 1], of_row, columns[1]));
                    *reinterpret_cast<uint32*>(staging + swizzled<chunks>(row, n) + quad_column * 2) = pair;
                }
            }
        }
        __syncwarp();
        const Out out{static_cast<Element*>(args.out), args.out_stride};
        for (int item16 = lane; item16 < L::warp_m * chunks; item16 += 32) {
            const int row = item16 / chunks;
            const int chunk = item16 % chunks;
            const int tile_row = warp_m * L::warp_m + row;
            const int column = tile.column + warp_n * L::warp_n + chunk * 8;
            if (tile_row < tile.rows && column < C::OUT) {
                const int to = Out::index(tile.first_row + tile_row, row_flat[tile_row]);
                *reinterpret_cast<Vec16*>(out.address(to) + column) =
                    *reinterpret_cast<const Vec16*>(staging + swizzled<chunks>(row, chunk));
            }
        }
    }
}

}  // namespace smlora::grouped_product_mma
