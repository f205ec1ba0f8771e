// How the sums of a multiplying warpgroup leave.
#pragma once

#include "lora_gradient_wgmma/layout.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_wgmma {

/// Neighbours of 16 bits each, stored at once.
struct alignas(8) Four {
    uint32 words[2];
};

/// Writes an item's sums of BLOCKS x 64 columns, from `first_column` on, and some ranks. In a block, lane l of warp w
/// has columns 16 w + l / 4 and 8 more, and of each eight ranks l % 4 * 2 and the next.
template <class C>
struct Writer {
    using Output = typename C::Output;

    const Item& item;
    const LoraGradientArgs& side;
    int wide;   ///< columns of the whole gradient
    int lane;   ///< of the warp
    int first;  ///< column of this lane

    __device__ __forceinline__ Writer(const Item& of, const LoraGradientPair& args, int first_column)
        : item(of),
          side(of.side == side_a ? args.a : args.b),
          wide(of.side == side_a ? C::WIDE_A : C::WIDE_B),
          lane(static_cast<int>(threadIdx.x) & 31),
          first(first_column + (static_cast<int>(threadIdx.x) >> 5 & 3) * 16 + lane / 4) {}

    /// The columns of block m, and eight more each if `half` is 1, that this lane has.
    static constexpr int column_offset(int m, int half) { return m * block_columns + half * 8; }

    [[nodiscard]] __device__ __forceinline__ bool has(int column) const { return column < item.column + item.width; }

    template <int RANKS>
    using Sums = float[C::BLOCKS][RANKS / 2];

    template <int RANKS>
    static __device__ __forceinline__ float sum(const Sums<RANKS>& sums, int m, int half, int eight, int which) {
        return sums[m][(eight * 2 + half) * 2 + which];
    }

    /// One by one, to any strides.
    template <int RANKS, class Element>
    __device__ __forceinline__ void write_each(const Sums<RANKS>& sums, int first_rank, Element* to, int64 wide_stride,
                                               int64 rank_stride) const {
        to += first * wide_stride;
#pragma unroll
        for (int i = 0; i < RANKS / 4; ++i) {
            const int rank = first_rank + i / 2 * 8 + lane % 4 * 2 + i % 2;
            Element* const of_rank = to + rank * rank_stride;
#pragma unroll
            for (int b = 0; b < C::BLOCKS * 2; ++b) {
                const int offset = column_offset(b / 2, b % 2);
                if (rank < C::RANK && has(first + offset)) {
                    of_rank[offset * wide_stride] = from_float<Element>(sum<RANKS>(sums, b / 2, b % 2, i / 2, i % 2));
                }
            }
        }
    }

    /// Of two words a lane and its neighbour `across` have, one lane gets both first ones, in order, and the other both
    /// second ones: four bytes of a row more.
    static __device__ __forceinline__ Four exchanged(uint32 first_word, uint32 second_word, int across, bool upper) {
        const uint32 other = __shfl_xor_sync(0xffffffffU, upper ? first_word : second_word, across);
        return upper ? Four{{other, second_word}} : Four{{first_word, other}};
    }

    /// Four ranks at once, which are neighbours: of each sixteen, a lane of two takes four of the first eight and the
    /// other four of the second.
    template <int RANKS>
    __device__ __forceinline__ void write_along_ranks(const Sums<RANKS>& sums, int first_rank, Output* to) const {
        const bool upper = lane % 2 != 0;
#pragma unroll
        for (int b = 0; b < C::BLOCKS * 2; ++b) {
            const int column = first + column_offset(b / 2, b % 2);
            Output* const of_column = to + column * side.out_wide_stride;
            const auto word = [&](int eight) {
                return pack2<Output>(sum<RANKS>(sums, b / 2, b % 2, eight, 0),
                                     sum<RANKS>(sums, b / 2, b % 2, eight, 1));
            };
#pragma unroll
            for (int eight = 0; eight + 1 < RANKS / 8; eight += 2) {
                const Four four = exchanged(word(eight), word(eight + 1), 1, upper);
                const int rank = first_rank + (eight + (upper ? 1 : 0)) * 8 + lane % 4 / 2 * 4;
                if (rank < C::RANK && has(column)) *reinterpret_cast<Four*>(of_column + rank) = four;
            }
            if constexpr (RANKS / 8 % 2 != 0) {
                const int rank = first_rank + RANKS - 8 + lane % 4 * 2;
                if (rank < C::RANK && has(column)) *reinterpret_cast<uint32*>(of_column + rank) = word(RANKS / 8 - 1);
            }
        }
    }

    /// Four columns at once, which are neighbours: of two lanes that have two of them, one takes the first rank and the
    /// other the second; of two lanes that have two such pairs, one takes four of the first eight columns and the other
    /// four of the second.
    template <int RANKS>
    __device__ __forceinline__ void write_along_columns(const Sums<RANKS>& sums, int first_rank, Output* to) const {
        const bool odd = lane / 4 % 2 != 0;
        const bool upper = lane / 8 % 2 != 0;
        const int own_first = first - lane / 4 + lane / 16 * 4 + (upper ? 8 : 0);
#pragma unroll
        for (int eight = 0; eight < RANKS / 8; ++eight) {
            const int rank = first_rank + eight * 8 + lane % 4 * 2 + (odd ? 1 : 0);
            Output* const of_rank = to + rank * side.out_rank_stride + own_first;
#pragma unroll
            for (int m = 0; m < C::BLOCKS; ++m) {
                uint32 word[2];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const float low = sum<RANKS>(sums, m, half, eight, 0);
                    const float high = sum<RANKS>(sums, m, half, eight, 1);
                    const float other = __shfl_xor_sync(0xffffffffU, odd ? low : high, 4);
                    word[half] = pack2<Output>(odd ? other : low, odd ? high : other);
                }
                const Four four = exchanged(word[0], word[1], 8, upper);
                const int offset = column_offset(m, 0);
                if (rank < C::RANK && has(own_first + offset)) *reinterpret_cast<Four*>(of_rank + offset) = four;
            }
        }
    }

    /// Whether fours of the expert's gradient are aligned.
    [[nodiscard]] static __device__ __forceinline__ bool in_fours(const Output* to, int64 other_stride) {
        return reinterpret_cast<uint64>(to) % 8 == 0 && other_stride % 4 == 0;
    }

    template <int RANKS>
    __device__ __forceinline__ void write(const Sums<RANKS>& sums, int first_rank) const {
        if (item.slot >= 0) {
            auto* const to = static_cast<float*>(side.partials) + static_cast<int64>(item.slot) * C::RANK * wide;
            write_each<RANKS>(sums, first_rank, to, 1, wide);
            return;
        }
        auto* const to =
            static_cast<Output*>(side.out) + GradientGroups<C>::adapter_of(item.group) * side.out_expert_stride;
        if constexpr (sizeof(Output) == 2) {
            if (C::RANK % 4 == 0 && side.out_rank_stride == 1 && in_fours(to, side.out_wide_stride)) {
                return write_along_ranks<RANKS>(sums, first_rank, to);
            }
            if (side.out_wide_stride == 1 && in_fours(to, side.out_rank_stride)) {
                return write_along_columns<RANKS>(sums, first_rank, to);
            }
        }
        write_each<RANKS>(sums, first_rank, to, side.out_wide_stride, side.out_rank_stride);
    }
};

}  // namespace smlora::lora_gradient_wgmma
