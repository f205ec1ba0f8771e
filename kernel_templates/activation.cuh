// The gated activation, or its gradient, element by element: memory-bound, everything is read once and written once.
//
// Roles: a warp takes a segment of a row, 32 lanes x UNROLL units; a thread has the 2 (backward 3) x UNROLL loads of
// its units under way at once. No shared memory, no barriers.
//
// A unit of a belongs to two units of h: the same one of either half, or, INTERLEAVED, two neighbours, of which each
// holds half of the gates and half of the values.
//
// Compile-time (struct C): WIDTH (of a), VECTOR (1: every row of all sides 16-byte aligned and WIDTH a multiple of 16
// bytes; 0: single elements), ACTIVATION, INTERLEAVED, BACKWARD, WRITES_A; type Element.
#pragma once

#include "args/activation.h"
#include "gated_activation.cuh"
#include "row_unit.cuh"
#include "types.cuh"

namespace smlora::activation {

using Args = ActivationKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    using Unit = RowUnit<Element, C::VECTOR>;
    using Raw = typename Unit::Raw;
    constexpr int elements = Unit::elements;
    constexpr int units = units_of<Unit>(C::WIDTH);
    constexpr RowSegments shape = activation_segments(units);
    constexpr int unroll = shape.unroll;
    constexpr int segments = shape.count;
    static_assert(C::WIDTH % elements == 0, "whole units");
    static_assert(C::BACKWARD || C::WRITES_A, "something to write");

    const int lane = static_cast<int>(threadIdx.x % 32);
    const int64 warps = static_cast<int64>(gridDim.x) * (blockDim.x / 32);
    const int64 items = static_cast<int64>(args.rows) * segments;

    for (int64 item = static_cast<int64>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; item < items;
         item += warps) {
        const int64 row = item / segments;
        const int first = static_cast<int>(item % segments) * 32 * unroll + lane;
        const auto* const h = reinterpret_cast<const Raw*>(static_cast<const Element*>(args.h) + row * args.h_stride);
        const auto* const da =
            reinterpret_cast<const Raw*>(static_cast<const Element*>(args.da) + row * args.da_stride);

        Raw raw_h[unroll][2] = {};
        Raw raw_da[unroll] = {};
#pragma unroll
        for (int i = 0; i < unroll; ++i) {
            const int unit = first + 32 * i;
            if (unit < units) {
                raw_h[i][0] = h[C::INTERLEAVED ? 2 * unit : unit];
                raw_h[i][1] = h[C::INTERLEAVED ? 2 * unit + 1 : units + unit];
                if constexpr (C::BACKWARD) raw_da[i] = da[unit];
            }
        }
#pragma unroll
        for (int i = 0; i < unroll; ++i) {
            const int unit = first + 32 * i;
            float halves[2][elements];
            Unit::unpack(raw_h[i][0], halves[0]);
            Unit::unpack(raw_h[i][1], halves[1]);
            float gradient[elements] = {};
            if constexpr (C::BACKWARD) Unit::unpack(raw_da[i], gradient);
            float value[elements];
            float d_halves[2][elements];
#pragma unroll
            for (int v = 0; v < elements; ++v) {
                constexpr int in_turns = C::INTERLEAVED;
                const int gate = in_turns ? 2 * v : v;
                const int up = in_turns ? 2 * v + 1 : elements + v;
                const Gated result = gated<C::ACTIVATION>(halves[gate / elements][gate % elements],
                                                          halves[up / elements][up % elements], args.alpha, args.limit);
                value[v] = result.value;
                d_halves[gate / elements][gate % elements] = gradient[v] * result.d_gate;
                d_halves[up / elements][up % elements] = gradient[v] * result.d_up;
            }
            if (unit < units) {
                if constexpr (C::WRITES_A) {
                    auto* const a = reinterpret_cast<Raw*>(static_cast<Element*>(args.a) + row * args.a_stride);
                    a[unit] = Unit::pack(value);
                }
                if constexpr (C::BACKWARD) {
                    auto* const dh = reinterpret_cast<Raw*>(static_cast<Element*>(args.dh) + row * args.dh_stride);
                    dh[C::INTERLEAVED ? 2 * unit : unit] = Unit::pack(d_halves[0]);
                    dh[C::INTERLEAVED ? 2 * unit + 1 : units + unit] = Unit::pack(d_halves[1]);
                }
            }
        }
    }
}

}  // namespace smlora::activation
