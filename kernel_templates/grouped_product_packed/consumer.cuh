// A warpgroup that decodes and multiplies, and rounds and stages the tile's output.
#pragma once

#include "grouped_product_packed/adapter.cuh"
#include "grouped_product_packed/layout.cuh"
#include "grouped_product_wgmma/consumer.cuh"
#include "ptx/shared_pairs.cuh"
#include "ptx/wgmma_registers.cuh"

namespace smlora::grouped_product_wgmma {

/// One multiplying warpgroup: `half` of the tile's columns, all of its rows.
template <class C>
requires grouped_product_packed::Packed<C>
struct Consumer<C> : Consumer<grouped_product_packed::OfAnyWeight<C>> {
    using Plain = Consumer<grouped_product_packed::OfAnyWeight<C>>;
    using L = Layout<C>;
    using Element = typename C::Element;
    using Finish = typename Plain::Finish;
    using Decoder = typename L::BaseWeight::Decoder;
    using Sums = float[2][C::TILE_ROWS / 2];  // of m64; a lower tile uses the first of each
    static_assert(!L::makes_rank_rows && C::CLUSTER == 1, "see grouped_product_packed.cuh");

    /// Fragments of a step, and buffers for them: one is multiplied, one waits, and one is under way still. What they
    /// are made of is loaded for two at a time, when two others wait.
    static constexpr int fragments = 8;
    static constexpr int buffers = 4;

    template <int N>
    static __device__ __forceinline__ auto& sums_of(float (&sums)[C::TILE_ROWS / 2]) {
        return reinterpret_cast<float(&)[N / 2]>(sums);
    }

    __device__ __forceinline__ unsigned stage() const {
        return this->base + static_cast<unsigned>(this->ring.stage) * L::memory.stage_bytes;
    }

    /// sums = the products of the reduction. The first two fragments are decoded, and half of the first stage loaded.
    /// `last` is the stage of the last step, whose products may be under way still.
    template <int N>
    __device__ __forceinline__ void multiply_steps(Sums& sums, Decoder& decoder, uint32 (&a)[buffers][4], int& last) {
#pragma unroll 1
        for (int step = 0; step < L::red_steps; ++step) {
            const int current = this->ring.stage;
            const unsigned from = stage();
            for_each_int<fragments>([&](auto number) {
                constexpr int j = decltype(number)::value;
                constexpr int k = Decoder::k_of(j);
                ptx::wgmma_fence();
                ptx::WgmmaOfRegisters<Element, N, 0>::run(sums_of<N>(sums[Decoder::m_of(j)]), a[j % buffers],
                                                          Plain::rows(from + L::memory.weight_bytes, 128, k),
                                                          k != 0 || step > 0);
                ptx::wgmma_commit();
                // The buffer that is filled next is free.
                ptx::wgmma_wait<2>();
                if constexpr (j % 2 == 0 && j < fragments / 2) decoder.template load<(j + 4) / 2>(from);
                if constexpr (j == 1) {
                    // So is the stage before.
                    if (step > 0) this->give_back(last);
                }
                if constexpr (j == fragments / 2) {
                    this->ring.next();
                    if (step + 1 < L::red_steps) this->wait_filled();
                }
                if constexpr (j % 2 == 0 && j >= fragments / 2) {
                    if (step + 1 < L::red_steps) decoder.template load<(j - 4) / 2>(stage());
                }
                decoder.template fragment<(j + 2) % fragments>(a[(j + 2) % buffers]);
            });
            last = current;
        }
    }

    /// sums += adapter weights at `weights` x rank rows at `rank_rows`, one step over the rank.
    template <int N>
    __device__ __forceinline__ void multiply_adapter(Sums& sums, unsigned weights, unsigned rank_rows) const {
#pragma unroll
        for (int k = 0; k < L::rank_depth / 16; ++k) {
            const uint64 right = Plain::rows(rank_rows, L::rank_pitch, k);
            if constexpr (C::WEIGHT_MAJOR == 0) {
                ptx::wgmma_fence();
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    L::AdapterWeight::template multiply<N>(sums_of<N>(sums[m]), weights, this->half * 2 + m, k, right);
                }
                ptx::wgmma_commit();
            } else {
                // ptxas wants no register of a fragment written while others are multiplied.
                ptx::wgmma_wait<0>();
                uint32 a[2][4];
                grouped_product_packed::adapter_fragments<typename Decoder::Codes, C::LORA_MAJOR, L::rank_pitch>(
                    a, weights, this->half, k);
                ptx::wgmma_fence();
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    ptx::WgmmaOfRegisters<Element, N, 0>::run(sums_of<N>(sums[m]), a[m], right);
                }
                ptx::wgmma_commit();
            }
        }
    }

    template <int N>
    __device__ __forceinline__ void multiply(Sums& sums, Decoder& decoder, uint32 (&a)[buffers][4]) {
        int last = 0;
        multiply_steps<N>(sums, decoder, a, last);
        if constexpr (L::has_lora) {
            multiply_adapter<N>(sums, this->base + L::memory.staging, this->base + L::memory.rank_rows);
        }
        ptx::wgmma_wait<0>();
        this->give_back(last);
#pragma unroll
        for (int m = 0; m < 2; ++m) ptx::wgmma_hold(sums_of<N>(sums[m]));
    }

    __device__ __forceinline__ void dispatch(const Tile& tile) {
        Sums sums;
        uint32 a[buffers][4];
        Decoder decoder(this->half, this->args.weight_map);
        this->wait_filled();
        decoder.template load<0>(stage());
        decoder.template load<1>(stage());
        decoder.template fragment<0>(a[0]);
        decoder.template fragment<1>(a[1]);
        // The least height serves lower tiles, too: it multiplies rows that nobody copied and nobody stores.
        for_each_int<(C::TILE_ROWS - C::LEAST_HEIGHT) / C::ROW_STEP + 1>([&](auto number) {
            constexpr int height = C::LEAST_HEIGHT + decltype(number)::value * C::ROW_STEP;
            if (tile.height == height || (height == C::LEAST_HEIGHT && tile.height < height)) {
                multiply<height>(sums, decoder, a);
            }
        });
        // Both warpgroups have read the operands in the staging before the output takes their place.
        if constexpr (L::memory.lora_beside) ptx::named_barrier_sync(consumers_barrier, 256);
        stage_output(tile, sums);
    }

    /// Column of the tile's half that row `h` x 8 of the thread's in m64 `m` is.
    static __device__ __forceinline__ int column_of(int m, int h) {
        const int thread = ptx::thread_here();
        const int lane = thread & 31;
        const int warp = (thread >> 5) & 3;
        if constexpr (C::WEIGHT_MAJOR == 0) {
            return m * 64 + warp * 16 + lane / 4 + h * 8;
        } else {
            return Decoder::Codes::column(warp, lane / 4, m) + h;
        }
    }

    __device__ __forceinline__ void stage_output(const Tile& tile, const Sums& sums) {
        const int lane = static_cast<int>(threadIdx.x) & 31;
        const int warp = (static_cast<int>(threadIdx.x) >> 5) & 3;
        const Finish finish{this->args.product};
        typename Finish::Column columns[2][2][1];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int column = tile.column + this->half * 128 + column_of(i / 2, i % 2);
            if (column < C::OUT) {
                finish.read_columns(columns[i / 2][i % 2], ProductGroups<C>::weight_of(tile.group), column);
            }
        }
        for_each_int<C::TILE_ROWS / slot_rows>([&](auto number) {
            constexpr int block = decltype(number)::value;
            if (block * slot_rows >= tile.height) return;
            const unsigned slot =
                this->base + L::memory.staging + static_cast<unsigned>(this->slots.stage) * L::slot_bytes;
            ptx::mbarrier_wait(L::stored(this->base, this->slots.stage), this->slots.parity ^ 1U);
            // The value of row n8 x 8 + lane % 4 x 2 + j of the block.
            const auto value = [&](int m, int h, int n8, int j) {
                const int row = block * slot_rows + n8 * 8 + lane % 4 * 2 + j;
                return Finish::apply(sums[m][(block * 2 + n8) * 4 + h * 2 + j], this->row_of_tile(finish, tile, row),
                                     columns[m][h][0]);
            };
            if constexpr (C::WEIGHT_MAJOR == 0) {
                // Matrix lane / 8 of four: columns + 8 in the odd ones, rows + 8 in the upper two.
                const int matrix_row = lane % 8 + lane / 16 * 8;
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    unsigned packed[4];
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        packed[i] = pack2<Element>(value(m, i % 2, i / 2, 0), value(m, i % 2, i / 2, 1));
                    }
                    const int chunk = this->half * 16 + m * 8 + warp * 2 + lane / 8 % 2;
                    ptx::stmatrix_x4_trans(slot + swizzled<32>(matrix_row, chunk), packed[0], packed[1], packed[2],
                                           packed[3]);
                }
            } else {
                // Two columns beside each other in m64 `m`; where they all are, those of both m64.
                constexpr bool four = Decoder::Codes::column(0, 0, 1) == 2;
#pragma unroll
                for (int n8 = 0; n8 < 2; ++n8) {
#pragma unroll
                    for (int j = 0; j < 2; ++j) {
                        const int row = n8 * 8 + lane % 4 * 2 + j;
                        const auto place = [&](int m) {
                            const int column = column_of(m, 0);
                            return slot + swizzled<32>(row, this->half * 16 + column / 8) +
                                   static_cast<unsigned>(column % 8 * 2);
                        };
                        const unsigned packed[2] = {pack2<Element>(value(0, 0, n8, j), value(0, 1, n8, j)),
                                                    pack2<Element>(value(1, 0, n8, j), value(1, 1, n8, j))};
                        if constexpr (four) {
                            ptx::store_shared(place(0), packed);
                        } else {
                            ptx::store_shared(place(0), packed[0]);
                            ptx::store_shared(place(1), packed[1]);
                        }
                    }
                }
            }
            ptx::mbarrier_arrive(L::staged(this->base, this->slots.stage));
            this->slots.next();
        });
    }
};

}  // namespace smlora::grouped_product_wgmma
