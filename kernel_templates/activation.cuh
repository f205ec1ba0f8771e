// The gated activation, or its gradient, element by element: memory-bound, everything is read once and written once.
//
// Roles: a warp takes a segment of a row, 32 lanes x UNROLL units, or with HAS_GATES all of a row, segment by segment;
// a thread has the 2 (backward 3) x UNROLL loads of its units under way at once. The gradient of a gate is added up
// lane by lane in order, then across the lanes in a butterfly of fixed order. No shared memory, no barriers.
//
// A unit of a belongs to two units of h: the same one of either half, or, INTERLEAVED, two neighbours, of which each
// holds half of the gates and half of the values.
//
// Compile-time (struct C): WIDTH (of a), VECTOR (1: every row of all sides 16-byte aligned and WIDTH a multiple of 16
// bytes; 0: single elements), ACTIVATION, INTERLEAVED, BACKWARD, WRITES_A, HAS_GATES (only BACKWARD); types Element,
// Gate, Index.
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
    static_assert(C::BACKWARD || !C::HAS_GATES, "gates are of the gradient");
    /// Segments that a warp takes one after the other.
    constexpr int own_segments = C::HAS_GATES ? segments : 1;

    const int lane = static_cast<int>(threadIdx.x % 32);
    const int64 warps = static_cast<int64>(gridDim.x) * (blockDim.x / 32);
    const int64 items = static_cast<int64>(args.rows) * (segments / own_segments);

    for (int64 item = static_cast<int64>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; item < items;
         item += warps) {
        const int64 row = item / (segments / own_segments);
        int first = static_cast<int>(item % (segments / own_segments)) * 32 * unroll + lane;
        const auto* const h = reinterpret_cast<const Raw*>(static_cast<const Element*>(args.h) + row * args.h_stride);
        const auto* const da =
            reinterpret_cast<const Raw*>(static_cast<const Element*>(args.da) + row * args.da_stride);

        float gate = 1.0F;
        float gate_gradient = 0.0F;
        int entry = 0;
        if constexpr (C::HAS_GATES) {
            entry = static_cast<int>(static_cast<const typename C::Index*>(args.scattered_idxs)[row]);
            gate = to_float(static_cast<const typename C::Gate*>(args.gates)[entry]);
        }
#pragma unroll 1
        for (int segment = 0; segment < own_segments; ++segment, first += 32 * unroll) {
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
                    const int g = in_turns ? 2 * v : v;
                    const int u = in_turns ? 2 * v + 1 : elements + v;
                    const Gated result = gated<C::ACTIVATION>(
                        halves[g / elements][g % elements], halves[u / elements][u % elements], args.alpha, args.limit);
                    value[v] = result.value;
                    d_halves[g / elements][g % elements] = gate * gradient[v] * result.d_gate;
                    d_halves[u / elements][u % elements] = gate * gradient[v] * result.d_up;
                    if constexpr (C::HAS_GATES) gate_gradient = fmaf(gradient[v], result.value, gate_gradient);
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
        if constexpr (C::HAS_GATES) {
#pragma unroll
            for (int distance = 16; distance > 0; distance /= 2) {
                gate_gradient += __shfl_xor_sync(0xffffffffU, gate_gradient, distance);
            }
            if (lane == 0) {
                static_cast<typename C::Gate*>(args.dgates)[entry] = from_float<typename C::Gate>(gate_gradient);
            }
        }
    }
}

}  // namespace smlora::activation
