// Copies an adapter matrix with any strides and type into the packed layout of the products: the expert outermost, rows
// contiguous, the rank zero-padded. Memory-bound: one read of the source, one write of the packed tensor.
//
// Roles: a thread has 16 elements of a tile under way at once. FASTEST = inner: units go straight through registers,
// neighbouring threads taking neighbouring units. Else a tile turns in shared memory: neighbouring threads read
// neighbours along the fastest dimension, a thread the elements of one unit of a packed row one after the other; a
// barrier; neighbouring threads write neighbouring units; a barrier.
//
// Shared memory (FASTEST outer or expert): a tile of units and what keeps it off the same banks (TurnedTile), 18 KiB at
// most of 4-byte elements and half of that of 2-byte ones.
//
// Compile-time (struct C): E, OUTER, INNER, OUTER_PAD, INNER_PAD, THREADS (of the launch), FASTEST (the source's
// dimension of smallest stride; a wrong one costs time, never the result), VECTOR (1: a unit is 16 bytes; with FASTEST
// = inner of the source, whose rows must be contiguous, 16-byte aligned and whole units, else of the packed rows, which
// must be whole units; 0: a unit is an element); types Source (Element or float), Element.
#pragma once

#include "args/pack_adapter.h"
#include "row_unit.cuh"
#include "types.cuh"

namespace smlora::pack_adapter {

using Args = PackAdapterArgs;

template <class C>
constexpr auto fastest_of = static_cast<Fastest>(C::FASTEST);

/// Whether an index below PADDED is below EXTENT.
template <int EXTENT, int PADDED>
__device__ __forceinline__ bool inside(uint32 index) {
    return EXTENT == PADDED || index < EXTENT;
}

/// An expert's matrix. Indices have no sign: that takes fewer instructions to divide and to multiply by a stride.
template <class C>
__device__ __forceinline__ const typename C::Source* matrix_of(const Args& args, uint32 expert) {
    return static_cast<const typename C::Source*>(args.source) + expert * args.expert_stride;
}

/// A unit of the source in the packed type, moved at once, too.
template <class Element, class Source, int VECTOR>
__device__ __forceinline__ auto converted(const typename RowUnit<Source, VECTOR>::Raw& raw) {
    if constexpr (is_same<Source, Element>::value) {
        return raw;
    } else if constexpr (VECTOR != 0) {
        const uint64 high = pack2<Element>(__uint_as_float(raw.word[2]), __uint_as_float(raw.word[3]));
        return high << 32 | pack2<Element>(__uint_as_float(raw.word[0]), __uint_as_float(raw.word[1]));
    } else {
        return from_float<Element>(raw);
    }
}

template <class C>
__device__ __forceinline__ void copy_straight(const Args& args) {
    using Source = typename C::Source;
    using Element = typename C::Element;
    using Unit = RowUnit<Source, C::VECTOR>;
    using Raw = typename Unit::Raw;
    using Packed = decltype(converted<Element, Source, C::VECTOR>(Raw{}));
    static_assert(C::INNER % Unit::elements == 0 && C::INNER_PAD % Unit::elements == 0, "whole units");
    constexpr uint32 row = C::INNER_PAD / Unit::elements;
    constexpr Tiling shape = tiling(fastest_of<C>, C::E, C::OUTER_PAD, C::INNER_PAD, Unit::elements);
    constexpr uint32 tiles = shape.y_tiles();
    constexpr int steps = ceil_div(shape.tile_y, C::THREADS);
    const int64 inner_stride = C::VECTOR ? 1 : args.inner_stride;

    for (uint32 item = blockIdx.x; item < shape.count(); item += gridDim.x) {
        const uint32 expert = item / tiles;
        const auto* const matrix = matrix_of<C>(args, expert);
        const uint32 first = item % tiles * shape.tile_y;
        const auto in_tile = [&](uint32 at) {
            return inside<shape.tile_y, steps * C::THREADS>(at) && inside<shape.y, tiles * shape.tile_y>(first + at);
        };

        Raw raw[steps] = {};
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const uint32 at = threadIdx.x + s * C::THREADS;
            const uint32 outer = (first + at) / row;
            const uint32 inner = (first + at) % row * Unit::elements;
            if (in_tile(at) && inside<C::OUTER, C::OUTER_PAD>(outer) && inside<C::INNER, C::INNER_PAD>(inner)) {
                raw[s] = *reinterpret_cast<const Raw*>(matrix + outer * args.outer_stride + inner * inner_stride);
            }
        }

        Packed* const out = static_cast<Packed*>(args.packed) + static_cast<int64>(expert) * shape.y + first;
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const uint32 at = threadIdx.x + s * C::THREADS;
            if (in_tile(at)) out[at] = converted<Element, Source, C::VECTOR>(raw[s]);
        }
    }
}

/// Where the units of a tile, row after row along Y, lie in shared memory. Eight threads that write neighbouring rows,
/// of one Y, or read neighbouring units reach all banks: rows of an odd number of units do that by themselves, others
/// with a unit left out after each of them, or after each eight of rows of 2, 4 or 8. Other even rows, and threads of
/// two Y, may meet in twos.
template <int TILE_X, int TILE_Y>
struct TurnedTile {
    static constexpr int units = TILE_X * TILE_Y;

    __device__ __forceinline__ static constexpr uint32 place(uint32 unit) {
        return TILE_Y % 2 == 1 ? unit : unit + unit / greatest_of(TILE_Y, 8);
    }
};

template <class C>
__device__ __forceinline__ void copy_turned(const Args& args) {
    using Unit = RowUnit<typename C::Element, C::VECTOR>;
    using Raw = typename Unit::Raw;
    static_assert(C::INNER_PAD % Unit::elements == 0, "whole units");
    constexpr uint32 row = C::INNER_PAD / Unit::elements;
    constexpr bool across_experts = fastest_of<C> == Fastest::expert;
    constexpr Tiling shape = tiling(fastest_of<C>, C::E, C::OUTER_PAD, C::INNER_PAD, Unit::elements);
    constexpr uint32 x_tiles = shape.x_tiles();
    constexpr uint32 y_tiles = shape.y_tiles();
    using Tile = TurnedTile<shape.tile_x, shape.tile_y>;
    constexpr int steps = ceil_div(Tile::units, C::THREADS);
    __shared__ Raw tile[Tile::place(Tile::units - 1) + 1];
    auto* const packed = static_cast<Raw*>(args.packed);

    for (uint32 item = blockIdx.x; item < shape.count(); item += gridDim.x) {
        const uint32 first_x = item % x_tiles * shape.tile_x;
        const uint32 first_y = item / x_tiles % y_tiles * shape.tile_y;
        const uint32 plane = item / (x_tiles * y_tiles);
        const auto in_tile = [&](uint32 at, uint32 x, uint32 y) {
            return inside<Tile::units, steps * C::THREADS>(at) && inside<shape.x, x_tiles * shape.tile_x>(x) &&
                   inside<shape.y, y_tiles * shape.tile_y>(y);
        };

        float values[steps][Unit::elements] = {};
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const uint32 at = threadIdx.x + s * C::THREADS;
            const uint32 x = first_x + at % shape.tile_x;
            const uint32 y = first_y + at / shape.tile_x;
            const uint32 outer = across_experts ? y / row : x;
            const uint32 inner = (across_experts ? y % row : y) * Unit::elements;
            if (in_tile(at, x, y) && inside<C::OUTER, C::OUTER_PAD>(outer)) {
                const auto* const from = matrix_of<C>(args, across_experts ? x : plane) + outer * args.outer_stride +
                                         inner * args.inner_stride;
#pragma unroll
                for (int v = 0; v < Unit::elements; ++v) {
                    if (inside<C::INNER, C::INNER_PAD>(inner + v)) values[s][v] = to_float(from[v * args.inner_stride]);
                }
            }
        }
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const uint32 at = threadIdx.x + s * C::THREADS;
            if (inside<Tile::units, steps * C::THREADS>(at)) {
                tile[Tile::place(at % shape.tile_x * shape.tile_y + at / shape.tile_x)] = Unit::pack(values[s]);
            }
        }
        __syncthreads();
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const uint32 at = threadIdx.x + s * C::THREADS;
            const uint32 x = first_x + at / shape.tile_y;
            const uint32 y = first_y + at % shape.tile_y;
            if (in_tile(at, x, y)) {
                packed[(static_cast<int64>(plane) * shape.x + x) * shape.y + y] = tile[Tile::place(at)];
            }
        }
        __syncthreads();  // before the next tile overwrites this one
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    static_assert(C::OUTER_PAD >= C::OUTER && C::INNER_PAD >= C::INNER, "padding adds");
    if constexpr (fastest_of<C> == Fastest::inner) {
        copy_straight<C>(args);
    } else {
        copy_turned<C>(args);
    }
}

}  // namespace smlora::pack_adapter
