// Copies an adapter matrix with any strides and type into the packed layout of the products: the expert outermost, rows
// contiguous, the rank zero-padded. Reads coalesce along the dimension that the source has contiguous, writes along the
// packed rows; where the two differ, a tile turns in shared memory.
//
// Roles: all threads read a tile, a barrier, all threads write it, a barrier. FASTEST = inner has no tile to turn: 1024
// elements straight through registers.
//
// Shared memory (FASTEST outer or expert): TILE_X x (TILE_Y + 1) elements, 1024 + TILE_X at most; the odd pitch keeps
// the column-wise stores off one bank.
//
// Compile-time (struct C): E, OUTER, INNER, OUTER_PAD, INNER_PAD, THREADS (of the launch), FASTEST (the source's
// dimension of smallest stride: 0 inner, 1 outer, 2 expert; a wrong one costs time, never the result); types Source,
// Element.
#pragma once

#include "args/pack_adapter.h"
#include "types.cuh"

namespace smlora::pack_adapter {

using Args = PackAdapterArgs;

enum Fastest : int { fastest_inner = 0, fastest_outer = 1, fastest_expert = 2 };

/// The packed tensor as PLANES x X x Y, X the source's fastest dimension (with FASTEST = expert, Y is a whole matrix)
/// and Y contiguous in the target, and its tiles.
template <class C>
struct Tiles {
    static constexpr int matrix = C::OUTER_PAD * C::INNER_PAD;
    static constexpr bool across_experts = C::FASTEST == fastest_expert;
    static constexpr int planes = across_experts ? 1 : C::E;
    static constexpr int x = across_experts ? C::E : C::OUTER_PAD;
    static constexpr int y = across_experts ? matrix : C::INNER_PAD;
    static constexpr int tile_y = least_of(y, tile_elements / least_of(x, 32));
    static constexpr int tile_x = least_of(x, tile_elements / tile_y);
    static constexpr int x_tiles = ceil_div(x, tile_x);
    static constexpr int y_tiles = ceil_div(y, tile_y);
    static constexpr int pitch = tile_y | 1;
};

template <class C>
__device__ __forceinline__ typename C::Element source_element(const Args& args, int expert, int outer, int inner) {
    if (outer >= C::OUTER || inner >= C::INNER) return from_float<typename C::Element>(0.0F);
    const auto value = static_cast<const typename C::Source*>(
        args.source)[expert * args.expert_stride + outer * args.outer_stride + inner * args.inner_stride];
    if constexpr (is_same<typename C::Source, typename C::Element>::value) {
        return value;
    } else {
        return from_float<typename C::Element>(to_float(value));
    }
}

template <class C>
__device__ __forceinline__ void copy_straight(const Args& args) {
    constexpr int matrix = C::OUTER_PAD * C::INNER_PAD;
    constexpr int pieces = ceil_div(matrix, tile_elements);
    constexpr int steps = tile_elements / C::THREADS;
    auto* const packed = static_cast<typename C::Element*>(args.packed);
    for (int64 item = blockIdx.x; item < static_cast<int64>(C::E) * pieces; item += gridDim.x) {
        const int expert = static_cast<int>(item / pieces);
        const int first = static_cast<int>(item % pieces) * tile_elements + static_cast<int>(threadIdx.x);
        typename C::Element values[steps] = {};
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const int at = first + s * C::THREADS;
            if (at < matrix) values[s] = source_element<C>(args, expert, at / C::INNER_PAD, at % C::INNER_PAD);
        }
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const int at = first + s * C::THREADS;
            if (at < matrix) packed[static_cast<int64>(expert) * matrix + at] = values[s];
        }
    }
}

template <class C>
__device__ __forceinline__ void copy_turned(const Args& args) {
    using Element = typename C::Element;
    using Shape = Tiles<C>;
    constexpr int tile_size = Shape::tile_x * Shape::tile_y;
    constexpr int steps = ceil_div(tile_size, C::THREADS);
    __shared__ Element tile[Shape::tile_x * Shape::pitch];
    auto* const packed = static_cast<Element*>(args.packed);

    constexpr int64 items = static_cast<int64>(Shape::planes) * Shape::x_tiles * Shape::y_tiles;
    for (int64 item = blockIdx.x; item < items; item += gridDim.x) {
        const int first_y = static_cast<int>(item % Shape::y_tiles) * Shape::tile_y;
        const int first_x = static_cast<int>(item / Shape::y_tiles % Shape::x_tiles) * Shape::tile_x;
        const int plane = static_cast<int>(item / (static_cast<int64>(Shape::y_tiles) * Shape::x_tiles));

        Element values[steps] = {};
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const int at = static_cast<int>(threadIdx.x) + s * C::THREADS;
            const int x = first_x + at % Shape::tile_x;
            const int y = first_y + at / Shape::tile_x;
            if (at < tile_size && x < Shape::x && y < Shape::y) {
                values[s] = Shape::across_experts ? source_element<C>(args, x, y / C::INNER_PAD, y % C::INNER_PAD)
                                                  : source_element<C>(args, plane, x, y);
            }
        }
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const int at = static_cast<int>(threadIdx.x) + s * C::THREADS;
            if (at < tile_size) tile[at % Shape::tile_x * Shape::pitch + at / Shape::tile_x] = values[s];
        }
        __syncthreads();
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const int at = static_cast<int>(threadIdx.x) + s * C::THREADS;
            const int x = first_x + at / Shape::tile_y;
            const int y = first_y + at % Shape::tile_y;
            if (at < tile_size && x < Shape::x && y < Shape::y) {
                packed[(static_cast<int64>(plane) * Shape::x + x) * Shape::y + y] =
                    tile[at / Shape::tile_y * Shape::pitch + at % Shape::tile_y];
            }
        }
        __syncthreads();  // before the next tile overwrites this one
    }
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    static_assert(C::OUTER_PAD >= C::OUTER && C::INNER_PAD >= C::INNER, "padding adds");
    static_assert(tile_elements % C::THREADS == 0, "whole passes over a tile");
    if constexpr (C::FASTEST == fastest_inner) {
        copy_straight<C>(args);
    } else {
        copy_turned<C>(args);
    }
}

}  // namespace smlora::pack_adapter
